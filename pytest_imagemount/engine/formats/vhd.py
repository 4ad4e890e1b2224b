"""VHD (qemu's ``vpc``): the footer and the header checked.

Sources: Microsoft, "Virtual Hard Disk Image Format Specification" 1.0; qemu's block/vpc.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .content import Content

_COOKIE = b"conectix"
_FOOTER = struct.Struct(">8sIIQI4sI4sQQHBBII16sB")
_FOOTER_SIZE = 512
_CHECKSUM = slice(64, 68)
_NO_HEADER = (1 << 64) - 1
_FIXED, _DYNAMIC, _DIFFERENCING = 2, 3, 4
_DYNAMIC_HEADER_SIZE = 1024
_TABLE = struct.Struct(">16xQ4xI")  # of that header: where the block table is, and how many entries it has
_PARENT_NAME = slice(64, 576)


@dataclass(frozen=True, slots=True)
class _Footer:
    raw: bytes

    @property
    def is_there(self) -> bool:
        return len(self.raw) == _FOOTER_SIZE and self.raw.startswith(_COOKIE)

    @property
    def version(self) -> int:
        return int(_FOOTER.unpack_from(self.raw)[2])

    @property
    def data_offset(self) -> int:
        return int(_FOOTER.unpack_from(self.raw)[3])

    @property
    def size(self) -> int:
        """Bytes, as the maker set it ("current size")."""
        return int(_FOOTER.unpack_from(self.raw)[9])

    @property
    def geometry_size(self) -> int:
        """Bytes, from cylinders, heads and sectors."""
        cylinders, heads, sectors = _FOOTER.unpack_from(self.raw)[10:13]
        return int(cylinders) * int(heads) * int(sectors) * 512

    @property
    def type(self) -> int:
        return int(_FOOTER.unpack_from(self.raw)[13])

    @property
    def checksum_is_right(self) -> bool:
        """The stored checksum is the one's complement of the sum of all bytes but its own."""
        total = sum(self.raw) - sum(self.raw[_CHECKSUM])
        return ~total & 0xFFFF_FFFF == int.from_bytes(self.raw[_CHECKSUM], "big")


def _at_start(content: Content) -> _Footer:
    return _Footer(content.peek(_FOOTER_SIZE, 0))


def _at_end(content: Content) -> _Footer:
    return _Footer(content.peek(_FOOTER_SIZE, max(content.size - _FOOTER_SIZE, 0)))


def claims(content: Content) -> bool:
    """A dynamic disk starts with a copy of its footer. A fixed one is its bare bytes and the footer behind them.

    The footer alone decides only when it is one of a fixed disk in all respects: version 1.0, checksum right, no
    further header, and a size that is the file's less the footer. Then ``vpc`` and ``raw`` differ in nothing but these
    512 bytes, so that a raw disk which ends so by design is read the same but for its last sector.
    """
    if _at_start(content).is_there:
        return True
    footer = _at_end(content)
    return (
        footer.is_there
        and footer.type == _FIXED
        and footer.version == 0x10000
        and footer.data_offset == _NO_HEADER
        and footer.size == content.size - _FOOTER_SIZE
        and footer.checksum_is_right
    )


def admits(content: Content) -> bool:
    """The cookie, at the start or in the footer."""
    return _at_start(content).is_there or _at_end(content).is_there


def virtual_size(content: Content) -> int:
    """The virtual size in bytes; 0 where geometry and size disagree, since qemu picks between them by who made it."""
    start = _at_start(content)
    footer = start if start.is_there else _at_end(content)
    if footer.type == _DIFFERENCING:
        header = content.peek(_DYNAMIC_HEADER_SIZE, footer.data_offset)
        name = header[_PARENT_NAME].decode("utf-16-be", "replace").partition("\0")[0]
        raise content.unsafe("parent disk", name)
    if footer.type not in (_FIXED, _DYNAMIC):
        raise content.corrupt(f"its VHD footer gives disk type {footer.type}; 2 (fixed) and 3 (dynamic) are known")
    if footer.type == _DYNAMIC:
        header = content.read(_DYNAMIC_HEADER_SIZE, footer.data_offset, "VHD dynamic disk header")
        if not header.startswith(b"cxsparse"):
            raise content.corrupt(f"its VHD dynamic disk header is not at byte {footer.data_offset}")
        offset, entries = _TABLE.unpack_from(header)
        content.require_table(entries * 4, offset, "VHD block table")
        if not content.is_block_device and not _at_end(content).is_there:
            raise content.corrupt("truncated: the VHD footer is missing from its end")
    return footer.size if footer.size == footer.geometry_size else 0
