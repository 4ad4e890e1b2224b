"""Where a file system is mounted: one name for system calls, another for people."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from . import syscalls
from .mountinfo import mounts

if TYPE_CHECKING:
    from .mountinfo import MountEntry


@dataclass(frozen=True, slots=True)
class Target:
    """``path`` is what people read; ``call`` is what system calls get, and no renaming on the way diverts it."""

    path: Path
    call: str

    @classmethod
    def at(cls, path: Path) -> Self:
        """A folder that is reached by its path."""
        return cls(path, str(path))

    @classmethod
    def held(cls, fd: int) -> Self:
        """The very folder that is open at ``fd``, which must stay open.

        The dot at the end: umount2 with UMOUNT_NOFOLLOW does not follow the link ``/proc/self/fd/N`` as a last
        component, and with the dot it still finds what is mounted on the folder.
        """
        return cls(Path(f"/proc/self/fd/{fd}").readlink(), f"/proc/self/fd/{fd}/.")

    def shows(self, device: str) -> bool:
        """Whether a file system on block device ``device`` is mounted here."""
        where = Path(os.path.realpath(self.call))
        return any(entry.target == where and _is_on(entry, device) for entry in mounts())

    def open_root(self, device: str) -> int:
        """An O_PATH descriptor of the root of the file system on block device ``device`` that is mounted here.

        :raises OSError: ESTALE: another file system is mounted here, or none
        """
        # A held folder's own descriptor leads below the mount: the path does not, and what it finds is compared.
        name = str(self.path) if self.call.endswith("/.") else self.call
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            number = mount_id(fd)
            entry = next((entry for entry in mounts() if entry.mount_id == number), None)
            if entry is None or not _is_on(entry, device):
                raise OSError(errno.ESTALE, f"{device} is not mounted here any more", str(self.path))
        except BaseException:
            os.close(fd)
            raise
        return fd


def mount_id(fd: int) -> int:
    """The id, as in mountinfo, of the mount that the file open at ``fd`` was reached through."""
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        if line.startswith("mnt_id:"):
            return int(line.split()[1])
    raise OSError(errno.ENOSYS, "the kernel tells no mount ids")


def open_parent(path: Path) -> int:
    """An O_PATH descriptor of the folder that ``path`` lies in; no symbolic link on the way is followed.

    :raises OSError: there is a link on the way (ELOOP), or no such folder
    """
    no_links = syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
    return syscalls.openat2(-100, str(path.parent), os.O_PATH | os.O_DIRECTORY, resolve=no_links)


def _is_on(entry: MountEntry, device: str) -> bool:
    # btrfs shows a device number of its own invention, and the device by name only.
    folder = Path("/sys/dev/block") / entry.device
    return entry.source == device or (folder.exists() and folder.resolve().name == Path(device).name)
