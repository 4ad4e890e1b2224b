"""VHDX: the regions and the metadata checked. Source: Microsoft, [MS-VHDX]."""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .content import Content

_MAGIC = b"vhdxfile"
_HEADERS = (64 << 10, 128 << 10)
_LOG = struct.Struct("<48x16s4xIQ")  # of a header: the log's id, which is zero where it is empty; its length and place
_REGION_TABLES = (192 << 10, 256 << 10)
_REGION_TABLE_SIZE = 64 << 10
_METADATA_TABLE_SIZE = 64 << 10
_BLOCK_TABLE = uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08")
_METADATA_REGION = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_FILE_PARAMETERS = uuid.UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_VIRTUAL_SIZE = uuid.UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_PARENT_LOCATOR = uuid.UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")
_HAS_PARENT = 1 << 1


def claims(content: Content) -> bool:
    """The file type identifier."""
    return content.peek(8, 0) == _MAGIC


def virtual_size(content: Content) -> int:
    """The virtual size in bytes of a VHDX that has no parent."""
    for header in _HEADERS:
        log, length, place = _LOG.unpack(content.peek(_LOG.size, header).ljust(_LOG.size, b"\0"))
        if any(log):
            content.require_table(length, place, "VHDX log")
    # Both tables are followed: whichever the reader of the disk takes, it must not lead to another file.
    regions = [region for offset in _REGION_TABLES for region in _regions(content, offset)]
    for kind, offset, length in regions:
        if kind == _BLOCK_TABLE:
            content.require_table(length, offset, "VHDX block table")
    metadata = dict.fromkeys(offset for kind, offset, _ in regions if kind == _METADATA_REGION)
    if not metadata:
        content.require_inside(_REGION_TABLE_SIZE, _REGION_TABLES[0], "VHDX region table")
        raise content.corrupt("neither of its two VHDX region tables names the metadata")
    sizes = [_metadata_virtual_size(content, offset) for offset in metadata]
    return sizes[0]


def _regions(content: Content, offset: int) -> Iterator[tuple[uuid.UUID, int, int]]:
    """Kind, place and length of each region in the table at byte ``offset``."""
    table = content.peek(_REGION_TABLE_SIZE, offset)
    if len(table) < _REGION_TABLE_SIZE or not table.startswith(b"regi"):
        return
    count = min(int.from_bytes(table[8:12], "little"), 2047)
    for at in range(16, 16 + count * 32, 32):
        place, length = struct.unpack_from("<QI", table, at + 16)
        yield uuid.UUID(bytes_le=table[at : at + 16]), place, length


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
