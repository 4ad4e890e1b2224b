"""The subvolumes of a mounted btrfs. Source: linux/btrfs.h, linux/btrfs_tree.h."""

from __future__ import annotations

import fcntl
import struct
from typing import TYPE_CHECKING

from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

_TREE_SEARCH = 3 << 30 | 4096 << 16 | 0x94 << 8 | 17
_INO_LOOKUP = 3 << 30 | 4096 << 16 | 0x94 << 8 | 18
# struct btrfs_ioctl_search_key: tree_id; min and max of objectid, offset, transid; min and max of type; nr_items.
_KEY = struct.Struct("=7Q3I36x")
_ITEM = struct.Struct("=3Q2I")  # struct btrfs_ioctl_search_header: transid, objectid, offset, type, length
_BACKREF = struct.Struct("<QQH")  # struct btrfs_root_ref: directory, sequence, length of the name that follows
_LOOKUP = struct.Struct("=2Q")  # tree, inode; then the path, which ends in a slash
_ARGUMENT = 4096

_ROOT_TREE, _TOP = 1, 5
_ROOT_BACKREF = 144
_FIRST, _LAST = 256, (1 << 64) - 256  # ids of trees that are subvolumes
_MOST = 1000
_DEEPEST = 64


def subvolumes(fd: int) -> list[str]:
    """Paths from the top, as ``subvolume=`` takes them and safe to print; those that may be looked at, in order.

    :param fd: of any folder of the file system
    :raises OSError: it is no btrfs, or the caller is not root
    """
    parents = {tree: (parent, folder, name) for tree, parent, folder, name in _backrefs(fd)}
    return sorted(printable(_path(fd, tree, parents)) for tree in parents)


def _path(fd: int, tree: int, parents: dict[int, tuple[int, int, str]]) -> str:
    parts: list[str] = []
    while tree != _TOP and tree in parents and len(parts) < _DEEPEST:
        parent, folder, name = parents[tree]
        parts.append(_folder_path(fd, parent, folder) + name)
        tree = parent
    return "/".join(reversed(parts))


def _folder_path(fd: int, tree: int, inode: int) -> str:
    """Path of a folder from the top of its tree, with a slash at its end; empty for the top itself."""
    argument = bytearray(_ARGUMENT)
    _LOOKUP.pack_into(argument, 0, tree, inode)
    fcntl.ioctl(fd, _INO_LOOKUP, argument)
    return argument[_LOOKUP.size :].partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _backrefs(fd: int) -> Iterator[tuple[int, int, int, str]]:
    """Tree, its parent's tree, the folder in that, and the name there, of each subvolume, up to a bound."""
    seen, first, offset = 0, _FIRST, 0
    while seen < _MOST:
        argument = bytearray(_ARGUMENT)
        limit = (1 << 64) - 1
        _KEY.pack_into(
            argument, 0, _ROOT_TREE, first, _LAST, offset, limit, 0, limit, _ROOT_BACKREF, _ROOT_BACKREF, 4096
        )
        fcntl.ioctl(fd, _TREE_SEARCH, argument)
        count = _KEY.unpack_from(argument)[9]
        if not count:
            return
        place = _KEY.size
        for _ in range(count):
            _, first, offset, kind, length = _ITEM.unpack_from(argument, place)
            place += _ITEM.size
            if kind == _ROOT_BACKREF:
                seen += 1
                folder, _, size = _BACKREF.unpack_from(argument, place)
                name = argument[place + _BACKREF.size : place + _BACKREF.size + size]
                yield first, offset, folder, name.decode("utf-8", "surrogateescape")
            place += length
        if offset == limit:
            return
        offset += 1
