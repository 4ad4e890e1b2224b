"""A mount namespace that has an image's tree for its root, and a little of what programs expect around it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..engine import syscalls
from . import namespace_calls as calls
from .user_namespace import IDENTITY, SHIFTED, Mapping, make_user_namespace

_HOSTNAME = "image"
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_NO_GAIN = syscalls.MS_NOSUID | syscalls.MS_NODEV


@dataclass(frozen=True, slots=True)
class Tree:
    """The image's tree.

    :param mounts: by their places, the root ``.`` first: descriptors of mounts that are attached nowhere
    :param users: a descriptor of the user namespace for it, which maps ids by ``mapping``
    """

    mounts: dict[str, int]
    users: int
    mapping: Mapping


def take_tree(folders: dict[str, int], *, writable: bool) -> Tree:
    """The tree that the open folders make, by their places; they are closed: open, they would keep the mounts busy.

    Its owners are shifted, so that the command's root is no user of this machine. Where a file system of it cannot do
    that (iso9660; squashfs before Linux 6.2) they are the machine's own numbers.

    :raises OSError: as the kernel says; ENOSYS before Linux 5.12
    """
    attributes = calls.MOUNT_ATTR_NOSUID | calls.MOUNT_ATTR_NODEV | (0 if writable else calls.MOUNT_ATTR_RDONLY)
    try:
        users = make_user_namespace(SHIFTED)
        with suppress(OSError):
            return Tree(_clone(folders, attributes | calls.MOUNT_ATTR_IDMAP, users), users, SHIFTED)
        os.close(users)
        return Tree(_clone(folders, attributes), make_user_namespace(IDENTITY), IDENTITY)
    finally:
        for folder in folders.values():
            os.close(folder)


def _clone(folders: dict[str, int], attributes: int, users: int = 0) -> dict[str, int]:
    mounts: dict[str, int] = {}
    try:
        for place, folder in folders.items():
            mounts[place] = calls.clone_mount(folder)
            calls.set_mount_attributes(mounts[place], attributes, users)
    except OSError:
        for mount in mounts.values():
            os.close(mount)
        raise
    return mounts


def enter(tree: Tree) -> None:
    """Make ``tree`` the root of a new mount namespace of this process, which must be the first of a pid namespace.

    No file of the machine can be reached afterwards, but by descriptors.
    """
    calls.unshare(calls.CLONE_NEWNS)
    # Slaves, not private: what other processes unmount meanwhile must not live on here.
    syscalls.mount("none", "/", "", calls.MS_REC | calls.MS_SLAVE, "")
    # On any folder that there is for certain; pivot_root takes it from there.
    calls.attach_mount(tree.mounts["."], "/proc")
    os.chdir("/proc")
    # The old root is put over the new one, and then taken off: no folder for it is needed.
    calls.pivot_root(".", ".")
    syscalls.umount2(".", calls.MNT_DETACH)
    os.chdir("/")
    for place, mount in tree.mounts.items():
        if place != ".":
            calls.attach_mount(mount, f"/{place}")
        os.close(mount)
    calls.set_hostname(_HOSTNAME)


def furnish(tree: Tree) -> None:
    """Mount ``/proc``, ``/dev``, ``/tmp`` and ``/run``, those of them for which the image has a folder.

    :raises OSError: as the kernel says
    """
    owner = f"uid={tree.mapping.first},gid={tree.mapping.first}"
    # A command whose root is the machine's own gets no procfs: root writes to /proc/sys without any capability, and
    # what /proc/PID/exe leads to, before the command is executed, is this machine's Python.
    if tree.mapping is SHIFTED and _is_folder("/proc"):
        syscalls.mount("proc", "/proc", "proc", _NO_GAIN | syscalls.MS_NOEXEC | syscalls.MS_RDONLY, "")
    for folder, mode, size in (("/tmp", "1777", "256m"), ("/run", "755", "64m")):
        if _is_folder(folder):
            syscalls.mount("tmpfs", folder, "tmpfs", _NO_GAIN, f"mode={mode},size={size},{owner}")
    if _is_folder("/dev"):
        data = f"mode=755,size=64m,{owner}"
        syscalls.mount("tmpfs", "/dev", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NOEXEC, data)
        _make_devices()


def _make_devices() -> None:
    before = os.umask(0)
    for name, (major, minor) in _DEVICES.items():
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for name, target in _LINKS.items():
        Path(f"/dev/{name}").symlink_to(target)
    Path("/dev/shm").mkdir(0o1777)
    os.umask(before)


def _is_folder(path: str) -> bool:
    """Whether it is a folder, and no link to one: what is mounted on a link may hide what the command needs."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
