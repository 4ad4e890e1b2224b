"""Whether a mounted tree is that of an installed system: what :class:`~.auto.Wish` asks of each candidate."""

from __future__ import annotations

import os

from .. import syscalls

SUBVOLUME = 256
"""Inode number of the top of a btrfs subvolume (BTRFS_FIRST_FREE_OBJECTID in linux/btrfs_tree.h)."""
_MOST_SUBVOLUMES = 1000
# As os-release(5) has them. The second is where the first, a link, leads to; it may be on another partition.
PLACES = ("etc/os-release", "usr/lib/os-release")


def has_os_release(root: int, folder: str = "") -> bool:
    """Whether the tree below the folder open at ``root`` has an ``etc/os-release``, be it a link that leads nowhere.

    No link on the way leads out of the tree.

    :param folder: of that tree, with a slash at its end, to look in instead
    """
    for place in PLACES:
        try:
            os.close(syscalls.openat2(root, f"{folder}{place}", os.O_PATH | os.O_NOFOLLOW))
        except OSError:
            continue
        return True
    return False


def has_subvolume_with_os_release(root: int) -> bool:
    """The same of any subvolume in the folder open at ``root``, the top of a btrfs: ``@``, ``root``, ``@rootfs``."""
    fd = os.open(f"/proc/self/fd/{root}/.", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(fd) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False) and _is_subvolume(entry)]
    finally:
        os.close(fd)
    return any(has_os_release(root, f"{name}/") for name in names[:_MOST_SUBVOLUMES])


def _is_subvolume(entry: os.DirEntry[str]) -> bool:
    return entry.stat(follow_symlinks=False).st_ino == SUBVOLUME
