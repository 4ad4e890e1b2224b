"""erofs by mkfs.erofs; owners, modes and devices are then written into the inodes.

Before 1.7 mkfs.erofs reads folders only and takes owners from what it sees there. The inodes are simple and their
place does not depend on what is written here, so that any owner can be had by any user.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING

from ... import programs
from ...errors import ProgramFailed
from ..checksums import crc32c
from ..content import Device, Directory, Hardlink, default_time
from ..sizes import KIB
from ..staging import stage_tree
from .modes import full_mode, wide_number
from .volume import FilesystemKind, Volume

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..content import Node, Tree

# Linux, Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h.
_SUPER = 1024
_CHECKSUM, _COMPATIBLE, _BLOCK_BITS, _ROOT, _META_BLOCK, _LABEL = 4, 8, 12, 14, 40, 64
_HAS_CHECKSUM = 1
_SLOT = 32
_EXTENDED = 64
_INLINE = 2
_DIRENT = struct.Struct("<QHBx")
_DIRENT_TYPES = {"char": 3, "block": 4, "fifo": 5}


def _make(volume: Volume, target: Path, scratch: Path) -> None:
    staged = scratch / "tree"
    stage_tree(volume.tree, staged)
    argv = ["mkfs.erofs", "--quiet", "-x-1", f"-T{default_time()}", "-U", volume.uuid, "-E", "force-inode-extended"]
    programs.run([*argv, *volume.options, str(target), str(staged)], extra_environment=volume.environment())
    with target.open("r+b") as file, mmap.mmap(file.fileno(), 0) as image:
        _Inodes(image, argv).apply(volume.tree, volume.label)
        image.flush()


class _Inodes:
    """The inodes of the erofs in ``image``, which is changed in place."""

    def __init__(self, image: mmap.mmap, argv: list[str]) -> None:
        self._image, self._argv = image, argv
        self._block = 1 << image[_SUPER + _BLOCK_BITS]
        (block,) = struct.unpack_from("<I", image, _SUPER + _META_BLOCK)
        self._start = block * self._block

    def apply(self, tree: Tree, label: str) -> None:
        """Write owner, mode, time and device number of everything in ``tree``, the label, and the checksum."""
        (root,) = struct.unpack_from("<H", self._image, _SUPER + _ROOT)
        self._write(root, tree.root, tree.time(tree.root))
        names = {"": self._list(root)}
        for path, entry in tree.entries.items():
            parent, _, name = path.rpartition("/")
            if os.fsencode(name) not in names[parent]:
                raise ProgramFailed(argv=self._argv, returncode=0, reason=f"left out {path!r}")
            number, place = names[parent][os.fsencode(name)]
            if isinstance(entry, Directory):
                names[path] = self._list(number)
            if isinstance(entry, Device):
                self._image[place + 10] = _DIRENT_TYPES[entry.kind]
            if not isinstance(entry, Hardlink):
                self._write(number, entry, tree.time(entry))
        struct.pack_into("16s", self._image, _SUPER + _LABEL, label.encode())
        self._seal()

    def _write(self, number: int, node: Node, seconds: int) -> None:
        inode = self._place(number)
        if isinstance(node, Device):
            struct.pack_into("<I", self._image, inode + 16, wide_number(node))
        struct.pack_into("<H", self._image, inode + 4, full_mode(node))
        struct.pack_into("<IIQI", self._image, inode + 24, node.uid, node.gid, seconds, 0)

    def _place(self, number: int) -> int:
        place: int = self._start + number * _SLOT
        (form,) = struct.unpack_from("<H", self._image, place)
        if not form & 1:
            hint = "leave out mkfs_options that choose a form of inodes"
            raise ProgramFailed(argv=self._argv, returncode=0, reason="wrote compact inodes", hint=hint)
        return place

    def _list(self, folder: int) -> dict[bytes, tuple[int, int]]:
        """Inode number and place of the entry for every name in ``folder``."""
        inode = self._place(folder)
        form, attributes = struct.unpack_from("<HH", self._image, inode)
        size, block = struct.unpack_from("<QI", self._image, inode + 8)
        after = inode + _EXTENDED + (12 + 4 * (attributes - 1) if attributes else 0)
        found: dict[bytes, tuple[int, int]] = {}
        for start in range(0, size, self._block):
            length = min(self._block, size - start)
            # An inline folder has its last, partly filled, block right after the inode.
            inline = form >> 1 & 7 == _INLINE and length < self._block
            found.update(self._entries(after if inline else block * self._block + start, length))
        return found

    def _entries(self, start: int, length: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
        (_, first, _) = _DIRENT.unpack_from(self._image, start)
        places = range(start, start + first, _DIRENT.size)
        entries = [_DIRENT.unpack_from(self._image, place) for place in places]
        ends = [offset for _, offset, _ in entries[1:]] + [length]
        for place, (number, offset, _), end in zip(places, entries, ends, strict=True):
            yield self._image[start + offset : start + end].partition(b"\0")[0], (number, place)

    def _seal(self) -> None:
        (features,) = struct.unpack_from("<I", self._image, _SUPER + _COMPATIBLE)
        if features & _HAS_CHECKSUM:
            struct.pack_into("<I", self._image, _SUPER + _CHECKSUM, 0)
            total = crc32c(self._image[_SUPER : max(self._block, 2 * _SUPER)])
            struct.pack_into("<I", self._image, _SUPER + _CHECKSUM, total)


def _default_size(tree: Tree) -> int:
    return tree.data_size(4 * KIB)


KIND = FilesystemKind(
    make=_make,
    default_size=_default_size,
    minimum=4 * KIB,
    label_limit=16,
    lacks=frozenset({"xattrs"}),
    sized=False,
)
