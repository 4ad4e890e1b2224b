"""Apple partition maps, of old Macintosh disks, their CDs, and ISO images that start on them.

Sources: Apple, "Inside Macintosh: Devices", chapter 3, "Driver Descriptor Record" and "Partition Map Entry"; the
kernel's block/partitions/mac.c, whose numbering this is: every entry counts, that of the map itself too.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ..reader import Window
from .partition_table import MOST_PARTITIONS, Partition, PartitionTable, fit, limit_warnings, overlaps

if TYPE_CHECKING:
    from ..reader import Reader

_DRIVER_DESCRIPTOR = struct.Struct(">2sH")
_ENTRY = struct.Struct(">2s2xIII32s32s")
_BLOCK_SIZES = (512, 1024, 2048, 4096)


def read_apple(reader: Reader) -> PartitionTable | None:
    """The map, or None where there is none."""
    head = reader.pread(_DRIVER_DESCRIPTOR.size, 0)
    if len(head) < _DRIVER_DESCRIPTOR.size:
        return None
    signature, declared = _DRIVER_DESCRIPTOR.unpack(head)
    if signature != b"ER":
        return None
    # CDs that old machines start from say 2048 and have a map in blocks of 512 as well, or only that.
    for block in dict.fromkeys((declared, 512)):
        if block in _BLOCK_SIZES and (first := _read_entry(reader, block, 1)) is not None:
            return _read_map(reader, block, first[0])
    return None


def _read_map(reader: Reader, block: int, count: int) -> PartitionTable:
    warnings: list[str] = []
    partitions: list[Partition] = []
    if count > MOST_PARTITIONS:
        warnings.append(f"the map claims {count} entries; the first {MOST_PARTITIONS} were read")
    for number in range(1, min(count, MOST_PARTITIONS) + 1):
        entry = _read_entry(reader, block, number)
        if entry is None:
            warnings.append(f"the map breaks off at entry {number} of {count}")
            break
        _, start, blocks, name, kind = entry
        if not blocks:
            continue
        if window := fit(number, Window(start * block, blocks * block), reader.size, warnings):
            partitions.append(Partition(number, window, kind or "unknown", None, None, name or None))
    return PartitionTable("apple", block, None, tuple(partitions), limit_warnings([*warnings, *overlaps(partitions)]))


def _read_entry(reader: Reader, block: int, number: int) -> tuple[int, int, int, str, str] | None:
    """Entries in the map, first block, blocks, name and type; None where no entry is."""
    raw = reader.pread(_ENTRY.size, number * block)
    if len(raw) < _ENTRY.size:
        return None
    signature, count, start, blocks, name, kind = _ENTRY.unpack(raw)
    return (count, start, blocks, _text(name), _text(kind)) if signature == b"PM" else None


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("mac_roman")
