"""Partition tables as bytes: GPT with both copies, and MBR with extended and logical partitions.

Written here rather than by sfdisk: for an image file sfdisk (2.38) always takes sectors of 512 bytes, and a 4096-byte
one has another table at other places. Sources: UEFI specification 2.10, chapter 5; Linux, block/partitions/msdos.c.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from .layout import ALIGNMENT, GPT_ENTRIES_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from ..engine.reader import Window
    from .layout import Layout

_GPT_ENTRY = struct.Struct("<16s16sQQQ72s")
_GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_REVISION = 0x0001_0000
_GPT_ENTRIES = 128
_MBR_ENTRY = struct.Struct("<B3sB3sII")
_MBR_ENTRIES_AT, _MBR_SIGNATURE_AT = 446, 440
_MBR_MAGIC = b"\x55\xaa"
_PROTECTIVE, _EXTENDED_LBA, _EXTENDED = 0xEE, 0x0F, 0x05
_HEADS, _SECTORS = 255, 63
_MAX_CYLINDER = 1023


@dataclass(frozen=True, slots=True)
class GptEntry:
    """What a GPT says of a partition, besides where it is. ``name`` is the PARTLABEL, ``uuid`` the PARTUUID."""

    type: UUID
    uuid: UUID
    name: str = ""
    attributes: int = 0


@dataclass(frozen=True, slots=True)
class MbrEntry:
    """What an MBR says of a partition, besides where it is."""

    type: int
    bootable: bool = False


def write_gpt(disk: IO[bytes], layout: Layout, entries: Sequence[GptEntry], disk_uuid: UUID) -> None:
    """Write the protective MBR and both copies of a GPT with ``entries``, one for each window of ``layout``."""
    sector, last = layout.sector_size, layout.size // layout.sector_size - 1
    table = b"".join(
        _GPT_ENTRY.pack(
            entry.type.bytes_le,
            entry.uuid.bytes_le,
            window.offset // sector,
            window.end // sector - 1,
            entry.attributes,
            entry.name.encode("utf-16-le"),
        )
        for (_, window), entry in zip(layout.windows, entries, strict=True)
    ).ljust(GPT_ENTRIES_SIZE, b"\0")
    table_sectors = GPT_ENTRIES_SIZE // sector
    protective = _MBR_ENTRY.pack(0, b"\0\2\0", _PROTECTIVE, b"\xff\xff\xff", 1, min(last, 0xFFFFFFFF))
    _write_mbr_sector(disk, 0, [protective])
    for here, other, place in ((1, last, 2), (last, 1, last - table_sectors)):
        usable = 2 + table_sectors, last - table_sectors - 1
        header = _gpt_header(here, other, usable, disk_uuid, place, table)
        _write(disk, here * sector, header)
        _write(disk, place * sector, table)


def _gpt_header(here: int, other: int, usable: tuple[int, int], disk: UUID, place: int, table: bytes) -> bytes:
    def pack(checksum: int) -> bytes:
        return _GPT_HEADER.pack(
            *(b"EFI PART", _GPT_REVISION, _GPT_HEADER.size, checksum, 0, here, other, *usable),
            *(disk.bytes_le, place, _GPT_ENTRIES, _GPT_ENTRY.size, zlib.crc32(table)),
        )

    return pack(zlib.crc32(pack(0)))


def write_mbr(disk: IO[bytes], layout: Layout, entries: Sequence[MbrEntry], signature: int) -> None:
    """Write an MBR with ``entries``, one for each window of ``layout``, and the chain of its logical partitions.

    ``signature`` is the 32-bit disk identifier.
    """
    sector = layout.sector_size
    primaries: list[bytes] = []
    logicals: list[tuple[Window, MbrEntry]] = []
    for (_, window), entry in zip(layout.windows, entries, strict=True):
        if layout.extended is not None and window.offset >= layout.extended.offset:
            logicals.append((window, entry))
        else:
            primaries.append(_mbr_entry(entry, window.offset, window.size, sector))
    if layout.extended is not None:
        outer = layout.extended
        primaries.append(_mbr_entry(MbrEntry(_EXTENDED_LBA), outer.offset, outer.size, sector))
        _write_chain(disk, outer, logicals, sector)
    _write_mbr_sector(disk, 0, primaries)
    _write(disk, _MBR_SIGNATURE_AT, struct.pack("<I", signature))


def _write_chain(disk: IO[bytes], outer: Window, logicals: list[tuple[Window, MbrEntry]], sector: int) -> None:
    """One table before each logical partition: the partition from there, and the next table from ``outer``."""
    for index, (window, entry) in enumerate(logicals):
        here = window.offset - ALIGNMENT
        pair = [_mbr_entry(entry, window.offset, window.size, sector, base=here)]
        if index + 1 < len(logicals):
            following = logicals[index + 1][0]
            start = following.offset - ALIGNMENT
            pair.append(_mbr_entry(MbrEntry(_EXTENDED), start, following.end - start, sector, base=outer.offset))
        _write_mbr_sector(disk, here, pair)


def _mbr_entry(entry: MbrEntry, offset: int, size: int, sector: int, base: int = 0) -> bytes:
    first, count = offset // sector, size // sector
    flag = 0x80 if entry.bootable else 0
    return _MBR_ENTRY.pack(flag, _chs(first), entry.type, _chs(first + count - 1), (offset - base) // sector, count)


def _chs(sector: int) -> bytes:
    """Cylinder, head and sector as three bytes, the last place that they can name for all beyond it."""
    cylinder, rest = divmod(sector, _HEADS * _SECTORS)
    head, place = divmod(rest, _SECTORS)
    if cylinder > _MAX_CYLINDER:
        cylinder, head, place = _MAX_CYLINDER, _HEADS - 1, _SECTORS - 1
    return bytes((head, (place + 1) | (cylinder >> 8 << 6), cylinder & 0xFF))


def _write_mbr_sector(disk: IO[bytes], offset: int, entries: list[bytes]) -> None:
    _write(disk, offset + _MBR_ENTRIES_AT, b"".join(entries).ljust(64, b"\0") + _MBR_MAGIC)


def _write(disk: IO[bytes], offset: int, data: bytes) -> None:
    disk.seek(offset)
    disk.write(data)
