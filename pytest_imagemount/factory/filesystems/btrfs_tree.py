"""The inodes of a fresh one-device btrfs, read and changed in place.

Source: Linux, include/uapi/linux/btrfs_tree.h, and the on-disk format page of the btrfs documentation.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import RequestInvalid
from ..checksums import crc32c
from ..content import Device
from .modes import full_mode

if TYPE_CHECKING:
    import io

    from ..content import Node

ROOT_FOLDER = 256
"""Inode number of the root folder."""

_SUPER, _SUPER_SIZE = 65536, 4096
_HEADER, _ITEM, _POINTER, _KEY = 101, 25, 33, struct.Struct("<QBQ")
_CHUNK, _STRIPE = 48, 32
_FS_TREE = 5
_INODE_ITEM, _DIR_ITEM, _DIR_INDEX, _ROOT_ITEM, _CHUNK_ITEM = 1, 84, 96, 132, 228
_CRC32C = 0
_ENTRY_TYPES = {"char": 3, "block": 4, "fifo": 5}


@dataclass(frozen=True, slots=True)
class _Chunk:
    """``length`` bytes at ``logical``, with a copy at each of the offsets ``places``."""

    logical: int
    length: int
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Item:
    """``size`` bytes at ``offset`` in the bytes of a leaf."""

    key: tuple[int, int, int]
    offset: int
    size: int


class FsTree:
    """The file tree of the btrfs in ``file``.

    ``names`` maps (inode number of a folder, name) to the inode number of what has that name there.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        file.seek(_SUPER)
        block = file.read(_SUPER_SIZE)
        root, chunk_root = struct.unpack_from("<QQ", block, 80)
        (self._node_size,) = struct.unpack_from("<I", block, 148)
        (checksum,) = struct.unpack_from("<H", block, 196)
        if checksum != _CRC32C:
            raise RequestInvalid(
                argument="mkfs_options", value="--csum", reason="owners can be set under the checksum crc32c only"
            )
        self._chunks = _system_chunks(block)
        self._chunks = [
            _chunk(item.key[2], leaf, item.offset)
            for leaf, item in self._items(chunk_root)
            if item.key[1] == _CHUNK_ITEM
        ]
        self._leaves: dict[int, bytearray] = {}
        self._inodes: dict[int, tuple[bytearray, int]] = {}
        self._types: dict[int, list[tuple[bytearray, int]]] = {}
        self.names: dict[tuple[int, bytes], int] = {}
        for leaf, item in self._items(self._fs_root(root), keep=True):
            if item.key[1] == _INODE_ITEM:
                self._inodes[item.key[0]] = leaf, item.offset
            elif item.key[1] in {_DIR_ITEM, _DIR_INDEX}:
                self._read_names(leaf, item)

    def set_inode(self, number: int, node: Node, seconds: int) -> None:
        """Owner, mode, times and device number of inode ``number``."""
        leaf, start = self._inodes[number]
        device = node.major << 20 | node.minor if isinstance(node, Device) else 0
        struct.pack_into("<IIIQ", leaf, start + 44, node.uid, node.gid, full_mode(node), device)
        struct.pack_into("<" + "QI" * 4, leaf, start + 112, *(seconds, 0) * 4)

    def set_type(self, number: int, device: Device) -> None:
        """What every name of inode ``number`` says that it is."""
        for leaf, place in self._types[number]:
            leaf[place] = _ENTRY_TYPES[device.kind]

    def write(self) -> None:
        """Write every leaf, with its checksum, to each of its copies."""
        for logical, leaf in self._leaves.items():
            struct.pack_into("<I", leaf, 0, crc32c(memoryview(leaf)[32:]) ^ 0xFFFFFFFF)
            for place in self._places(logical):
                self._file.seek(place)
                self._file.write(leaf)

    def _fs_root(self, root: int) -> int:
        for leaf, item in self._items(root):
            if item.key[:2] == (_FS_TREE, _ROOT_ITEM):
                (logical,) = struct.unpack_from("<Q", leaf, item.offset + 176)
                return int(logical)
        raise LookupError("the new btrfs has no file tree")

    def _items(self, logical: int, *, keep: bool = False) -> list[tuple[bytearray, _Item]]:
        """Every item of the tree at ``logical``, in order, with its leaf; ``keep`` leaves to write back."""
        self._file.seek(self._places(logical)[0])
        node = bytearray(self._file.read(self._node_size))
        count, level = struct.unpack_from("<IB", node, 96)
        found = []
        for index in range(count):
            if level:
                (child,) = struct.unpack_from("<Q", node, _HEADER + index * _POINTER + _KEY.size)
                found += self._items(child, keep=keep)
            else:
                place = _HEADER + index * _ITEM
                offset, size = struct.unpack_from("<II", node, place + _KEY.size)
                found.append((node, _Item(_KEY.unpack_from(node, place), _HEADER + offset, size)))
        if keep and not level:
            self._leaves[logical] = node
        return found

    def _places(self, logical: int) -> tuple[int, ...]:
        for chunk in self._chunks:
            if chunk.logical <= logical < chunk.logical + chunk.length:
                return tuple(place + logical - chunk.logical for place in chunk.places)
        raise LookupError(f"the new btrfs has nothing at {logical}")

    def _read_names(self, leaf: bytearray, item: _Item) -> None:
        place, end = item.offset, item.offset + item.size
        while place < end:
            number, _, _ = _KEY.unpack_from(leaf, place)
            data_size, name_size = struct.unpack_from("<HH", leaf, place + 25)
            name = bytes(leaf[place + 30 : place + 30 + name_size])
            self.names[item.key[0], name] = number
            self._types.setdefault(number, []).append((leaf, place + 29))
            place += 30 + name_size + data_size


def _chunk(logical: int, data: bytes | bytearray, offset: int) -> _Chunk:
    (length,) = struct.unpack_from("<Q", data, offset)
    (stripes,) = struct.unpack_from("<H", data, offset + 44)
    first = offset + _CHUNK
    places = (struct.unpack_from("<Q", data, first + index * _STRIPE + 8)[0] for index in range(stripes))
    return _Chunk(logical, length, tuple(places))


def _system_chunks(block: bytes) -> list[_Chunk]:
    (size,) = struct.unpack_from("<I", block, 160)
    place, end, chunks = 811, 811 + size, []
    while place < end:
        (logical,) = struct.unpack_from("<Q", block, place + 9)
        chunks.append(_chunk(logical, block, place + _KEY.size))
        (stripes,) = struct.unpack_from("<H", block, place + _KEY.size + 44)
        place += _KEY.size + _CHUNK + stripes * _STRIPE
    return chunks
