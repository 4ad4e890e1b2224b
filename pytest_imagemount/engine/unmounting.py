"""Unmounting, with the names of those who keep a mount busy."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import ImageMountError
from . import syscalls
from .holders import users_of
from .mountinfo import mounts
from .target import Target, mount_id, open_parent
from .undo import wait_until

if TYPE_CHECKING:
    from .mountinfo import MountEntry

# How long a busy unmount is tried again before it fails: longer than an indexer's glance at a new mount, short enough
# that everything a process holds is undone within the 4 s that xdist leaves.
_TIMEOUT = 1.0


def unmount(target: Target, timeout: float = _TIMEOUT) -> None:
    """umount2(2), tried again while the mount is busy, for ``timeout`` seconds at most.

    :raises ImageMountError: still busy, naming who holds it; never a lazy unmount, which would only hide them
    """

    def unmounted() -> bool:
        try:
            syscalls.umount2(target.call)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return False
            if error.errno == errno.EINVAL:  # not a mount point: somebody unmounted it before us
                return True
            raise
        return True

    if not wait_until(unmounted, timeout):
        users: list[str] = []
        with suppress(OSError):  # a dead file system does not even say its number
            users = users_of(target)
        lines = "".join(f"\n    {line}" for line in users) or "\n    no process that can be seen from here"
        what_to_do = "\n    close what is open in it, and leave its folders, before the block or the test ends"
        raise ImageMountError(f"it is busy; held by:{lines}{what_to_do if users else ''}")


def filesystem_at(target: Target) -> int | None:
    """The number (st_dev) of the file system that a path through ``target`` leads to; None where it does not say."""
    try:
        return os.stat(target.call).st_dev  # noqa: PTH116  (a Path would lose the dot at the end)
    except OSError:
        return None


def unmount_from(device: str, number: int | None, target: Target) -> None:
    """Unmount the file system on block device ``device``, and nothing that others have mounted in its place or over it.

    :param number: of the file system, as :func:`filesystem_at` said when it was mounted
    :raises ImageMountError: it is busy, or another file system is mounted over it
    """
    now = filesystem_at(target)
    if number is None or now is None or now == number:
        unmount(target)
        if number is None or filesystem_at(target) != number:
            return
        # It was mounted here twice, by somebody else the second time. (Or the folder is in this very file system.)
        unmount(target)
    elif target.shows(device):
        raise ImageMountError("another file system is mounted over it; unmount that first")


def unmount_entry(entry: MountEntry, timeout: float = _TIMEOUT) -> None:
    """Unmount exactly the mount ``entry``, wherever its path may lead by now. Gone already is fine.

    The kernel lets nobody rename or remove a mount point, so that a descriptor of the folder that it lies in, and its
    name, are as good as a descriptor of the mount, which would keep it busy.

    :raises ImageMountError: it is busy, or another mount lies over it
    """
    if not is_mounted(entry):
        return
    parent = open_parent(entry.target)
    try:
        name = entry.target.name
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            found = mount_id(fd)
        finally:
            os.close(fd)
        if found != entry.mount_id:
            raise ImageMountError(f"{entry.target}: something else is mounted over it; unmount that first")
        unmount(Target(entry.target, f"/proc/self/fd/{parent}/{name}"), timeout)
    finally:
        os.close(parent)


def is_mounted(entry: MountEntry) -> bool:
    """Whether this mount is there still."""
    return any(
        (now.mount_id, now.device, now.source) == (entry.mount_id, entry.device, entry.source) for now in mounts()
    )
