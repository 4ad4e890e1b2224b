"""VHD (qemu's ``vpc``) and VHDX: headers checked.

Sources: Microsoft, "Virtual Hard Disk Image Format Specification" 1.0 and [MS-VHDX]; qemu's block/vpc.c.
"""

from __future__ import annotations

import struct
import uuid
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
_PARENT_NAME = slice(64, 576)

_VHDX_MAGIC = b"vhdxfile"
_REGION_TABLES = (192 << 10, 256 << 10)
_REGION_TABLE_SIZE = 64 << 10
_METADATA_TABLE_SIZE = 64 << 10
_METADATA_REGION = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_VIRTUAL_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
_HAS_PARENT = 1 << 1


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


def claims_vpc(content: Content) -> bool:
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


def admits_vpc(content: Content) -> bool:
    """The cookie, at the start or in the footer."""
    return _at_start(content).is_there or _at_end(content).is_there


def vpc_virtual_size(content: Content) -> int:
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
        if not content.is_block_device and not _at_end(content).is_there:
            raise content.corrupt("truncated: the VHD footer is missing from its end")
    return footer.size if footer.size == footer.geometry_size else 0


def claims_vhdx(content: Content) -> bool:
    """The file type identifier."""
    return content.peek(8, 0) == _VHDX_MAGIC


def vhdx_virtual_size(content: Content) -> int:
    """The virtual size in bytes of a VHDX that has no parent."""
    regions = [found for offset in _REGION_TABLES if (found := _find_metadata_region(content, offset)) is not None]
    if not regions:
        content.require_inside(_REGION_TABLE_SIZE, _REGION_TABLES[0], "VHDX region table")
        raise content.corrupt("neither of its two VHDX region tables names the metadata")
    # Both tables are followed: whichever the reader of the disk takes, it must not lead to another file.
    sizes = [_metadata_virtual_size(content, region) for region in dict.fromkeys(regions)]
    return sizes[0]


def _find_metadata_region(content: Content, offset: int) -> int | None:
    table = content.peek(_REGION_TABLE_SIZE, offset)
    if len(table) < _REGION_TABLE_SIZE or not table.startswith(b"regi"):
        return None
    count = min(int.from_bytes(table[8:12], "little"), 2047)
    for at in range(16, 16 + count * 32, 32):
        if uuid.UUID(bytes_le=table[at : at + 16]) == _METADATA_REGION:
            return int.from_bytes(table[at + 16 : at + 24], "little")
    return None


def _metadata_virtual_size(content: Content, region: int) -> int:
    table = content.read(_METADATA_TABLE_SIZE, region, "VHDX metadata")
    if not table.startswith(b"metadata"):
        raise content.corrupt(f"its VHDX metadata is not at byte {region}")
    count = min(int.from_bytes(table[10:12], "little"), 2047)
    items: dict[uuid.UUID, bytes] = {}
    for at in range(32, min(32 + count * 32, _METADATA_TABLE_SIZE), 32):
        offset, length = struct.unpack_from("<II", table, at + 16)
        kind = uuid.UUID(bytes_le=table[at : at + 16])
        if kind in (_FILE_PARAMETERS, _VIRTUAL_SIZE, _PARENT_LOCATOR):
            items[kind] = content.peek(min(length, 1 << 20), region + offset)
    parameters, size = items.get(_FILE_PARAMETERS, b""), items.get(_VIRTUAL_SIZE, b"")
    if _PARENT_LOCATOR in items or (len(parameters) == 8 and parameters[4] & _HAS_PARENT):
        raise content.unsafe("parent disk", _parent_name(items.get(_PARENT_LOCATOR, b"")))
    if len(parameters) != 8 or len(size) != 8:
        raise content.corrupt("its VHDX metadata gives no size")
    return int.from_bytes(size, "little")


def _parent_name(locator: bytes) -> str:
    """A path of the parent out of a parent locator ([MS-VHDX] 2.6.2.6): key and value pairs in UTF-16."""
    if len(locator) < 20:
        return ""
    pairs = {}
    for at in range(20, min(20 + int.from_bytes(locator[18:20], "little") * 12, len(locator) - 11), 12):
        key_at, value_at, key_length, value_length = struct.unpack_from("<IIHH", locator, at)
        key = locator[key_at : key_at + key_length].decode("utf-16-le", "replace")
        pairs[key] = locator[value_at : value_at + value_length].decode("utf-16-le", "replace")
    for key in ("relative_path", "absolute_win32_path", "volume_path", "parent_linkage"):
        if key in pairs:
            return pairs[key]
    return ""
