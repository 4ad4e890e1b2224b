"""GUID partition tables. Source: UEFI Specification 2.10, sections 5.3.2 and 5.3.3.

A header is believed when its signature, its CRC, the place it says it is at and the CRC of its entries are right. The
primary one is taken; else the backup, where the primary says it is (if that much of it is right) or in the last sector.
The sector size is not written anywhere: the first at which there is a sound table is taken, and one whose primary has
at least the signature comes before those that only have a backup.

What the two copies agree on may still be wrong, on a truncated image above all. A partition that lies beyond the end
of the disk, or ends before it starts, is left out with a warning, as the kernel leaves it out: the others are whole and
their numbers stay. Partitions that overlap are kept with a warning, since hybrid ISO images have them on purpose.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ...errors import PartitionTableInvalid
from ..reader import Window
from .partition_table import MOST_PARTITIONS, Partition, PartitionTable, limit_warnings, overlaps
from .partition_types import GPT_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..reader import Reader

SECTOR_SIZES = (512, 4096, 2048, 1024)
"""In bytes, the likely ones first. Only where a header is found tells which it is."""

_SIGNATURE = b"EFI PART"
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_ENTRY = struct.Struct("<16s16sQQQ72s")
_UNUSED = bytes(16)
_CRC_AT = slice(16, 20)
_MOST_ENTRY_BYTES = 4096
_MOST_ARRAY_BYTES = 4 << 20
"""The kernel reads no larger array either (KMALLOC_MAX_SIZE)."""


class _CopyCorrupt(ValueError):
    """One copy of the table cannot be used; the text says why. ``has_signature``: there is a header at least."""

    def __init__(self, reason: str, *, has_signature: bool = True) -> None:
        super().__init__(reason)
        self.has_signature = has_signature


@dataclass(frozen=True, slots=True)
class _Header:
    """A header whose own CRC is right. ``place``, ``alternate`` and the like are sector numbers."""

    sector_size: int
    place: int
    alternate: int
    first_usable: int
    last_usable: int
    disk_uuid: str
    entries_at: int
    entry_count: int
    entry_size: int
    entries_crc: int


def read_gpt(reader: Reader, image: str) -> PartitionTable:
    """The table from the first of the two copies that is sound.

    :param image: the name that errors use
    :raises PartitionTableInvalid: neither is
    """
    primary_faults: dict[int, _CopyCorrupt] = {}
    backup_faults: dict[int, _CopyCorrupt] = {}
    later: list[int] = []
    for sector_size in SECTOR_SIZES:
        places = [reader.size // sector_size - 1]
        try:
            header = _read_header(reader, sector_size, 1)
            places.insert(0, header.alternate)
            return _make_table(reader, header, _read_entries(reader, header), _check_backup(reader, header))
        except _CopyCorrupt as fault:
            primary_faults[sector_size] = fault
        if not primary_faults[sector_size].has_signature:
            later.append(sector_size)
        elif table := _read_backup(reader, sector_size, places, primary_faults[sector_size], backup_faults):
            return table
    for sector_size in later:
        places = [reader.size // sector_size - 1]
        if table := _read_backup(reader, sector_size, places, primary_faults[sector_size], backup_faults):
            return table
    raise PartitionTableInvalid(
        image=image,
        reason=f"both copies of its GPT are corrupt; primary: {_pick(primary_faults)}; backup: {_pick(backup_faults)}",
        hint="get a whole copy of it, or mend it with `gdisk`",
    )


def _read_backup(
    reader: Reader, sector_size: int, places: list[int], primary: _CopyCorrupt, faults: dict[int, _CopyCorrupt]
) -> PartitionTable | None:
    """The table from the backup at the first of ``places`` (sectors) where it is sound; else its fault is noted."""
    for place in places:
        try:
            header = _read_header(reader, sector_size, place)
            entries = _read_entries(reader, header)
        except _CopyCorrupt as fault:
            faults.setdefault(sector_size, fault)
        else:
            return _make_table(
                reader, header, entries, [f"the primary GPT is corrupt ({primary}); its backup was used"]
            )
    return None


def _pick(faults: dict[int, _CopyCorrupt]) -> str:
    """The fault to tell of: that of the sector size for which a header was found at all."""
    sector_size = next((size for size in faults if faults[size].has_signature), SECTOR_SIZES[0])
    return str(faults[sector_size])


def _read_header(reader: Reader, sector_size: int, place: int) -> _Header:
    where = f"at byte {place * sector_size}"
    inside = 0 <= place < reader.size // sector_size
    raw = reader.pread(sector_size, place * sector_size) if inside else b""
    if len(raw) < sector_size:
        raise _CopyCorrupt(f"its place {where} is outside the disk of {reader.size} bytes", has_signature=False)
    (signature, _, length, crc, _, my_place, alternate, first_usable, last_usable, disk) = _HEADER.unpack_from(raw)[:10]
    entries_at, entry_count, entry_size, entries_crc = _HEADER.unpack_from(raw)[10:]
    if signature != _SIGNATURE:
        raise _CopyCorrupt(f"no header signature {where}", has_signature=False)
    if not _HEADER.size <= length <= sector_size:
        raise _CopyCorrupt(f"the header {where} gives its own length as {length} bytes")
    blank = bytearray(raw[:length])
    blank[_CRC_AT] = bytes(4)
    if zlib.crc32(blank) != crc:
        raise _CopyCorrupt(f"the header {where} has CRC {crc:#010x} and should have {zlib.crc32(blank):#010x}")
    if my_place != place:
        raise _CopyCorrupt(f"the header {where} says that it belongs at sector {my_place}")
    if first_usable > last_usable:
        raise _CopyCorrupt(f"the header {where} has its first usable sector behind its last")
    return _Header(
        sector_size=sector_size,
        place=place,
        alternate=alternate,
        first_usable=first_usable,
        last_usable=last_usable,
        disk_uuid=str(uuid.UUID(bytes_le=disk)),
        entries_at=entries_at,
        entry_count=entry_count,
        entry_size=entry_size,
        entries_crc=entries_crc,
    )


def _read_entries(reader: Reader, header: _Header) -> bytes:
    size = header.entry_size
    if not _ENTRY.size <= size <= _MOST_ENTRY_BYTES or size & (size - 1):
        raise _CopyCorrupt(f"its entries have {size} bytes each; 128 times a power of two is allowed")
    length = size * header.entry_count
    if length > _MOST_ARRAY_BYTES:
        raise _CopyCorrupt(f"its {header.entry_count} entries would take {length} bytes; 4 MiB is the most")
    offset = header.entries_at * header.sector_size
    if offset + length > reader.size:
        raise _CopyCorrupt(f"its entries at byte {offset} are outside the disk of {reader.size} bytes")
    entries = reader.pread(length, offset)
    if (crc := zlib.crc32(entries)) != header.entries_crc:
        reason = f"its entries at byte {offset} have CRC {crc:#010x} and should have {header.entries_crc:#010x}"
        raise _CopyCorrupt(reason)
    return entries


def _check_backup(reader: Reader, primary: _Header) -> list[str]:
    """What is wrong with the backup of a primary table that is sound."""
    try:
        backup = _read_header(reader, primary.sector_size, primary.alternate)
        _read_entries(reader, backup)
    except _CopyCorrupt as fault:
        return [f"the backup GPT is corrupt: {fault}"]
    if (backup.disk_uuid, backup.entries_crc) != (primary.disk_uuid, primary.entries_crc):
        return ["the backup GPT differs from the primary, which was used"]
    return []


def _make_table(reader: Reader, header: _Header, entries: bytes, warnings: list[str]) -> PartitionTable:
    partitions = tuple(islice(_partitions(reader, header, entries, warnings), MOST_PARTITIONS + 1))
    if len(partitions) > MOST_PARTITIONS:
        partitions = partitions[:MOST_PARTITIONS]
        warnings.append(f"there are more than {MOST_PARTITIONS} partitions, which is all that Linux numbers: left out")
    return PartitionTable(
        kind="gpt",
        sector_size=header.sector_size,
        uuid=header.disk_uuid,
        partitions=partitions,
        warnings=limit_warnings([*warnings, *overlaps(partitions)]),
    )


def _partitions(reader: Reader, header: _Header, entries: bytes, warnings: list[str]) -> Iterator[Partition]:
    sector = header.sector_size
    for number, at in enumerate(range(0, len(entries), header.entry_size), start=1):
        kind, unique, first, last, attributes, name = _ENTRY.unpack_from(entries, at)
        if kind == _UNUSED:
            continue
        offset, end = first * sector, (last + 1) * sector
        if end <= offset:
            warnings.append(f"partition {number} ends at sector {last}, before its start at {first}: left out")
            continue
        if end > reader.size:
            warnings.append(
                f"partition {number} ends at byte {end}, beyond the end of the disk at {reader.size}: left out "
                "(is the image truncated?)"
            )
            continue
        if first < header.first_usable or last > header.last_usable:
            warnings.append(f"partition {number} is not within the sectors that the GPT gives as usable")
        guid = str(uuid.UUID(bytes_le=kind))
        yield Partition(
            number=number,
            window=Window(offset, end - offset),
            type=guid,
            type_name=GPT_TYPES.get(guid),
            uuid=str(uuid.UUID(bytes_le=unique)),
            label=name.decode("utf-16-le", "replace").partition("\0")[0] or None,
            attributes=attributes,
        )
