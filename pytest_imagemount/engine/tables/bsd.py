"""BSD disklabels: on a disk of their own, and inside a partition of an MBR.

Sources: FreeBSD's sys/disk/bsd.h; the kernel's block/partitions/msdos.c, parse_bsd, for those in an MBR; libblkid's
bsd.c for the places.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..reader import Window
from .partition_table import Partition, PartitionTable, fit, limit_warnings, overlaps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..reader import Reader

SECTOR = 512

_MAGIC = 0x82564557
_HEADER = struct.Struct("<I36xI88xIHH8x")
_ENTRY = struct.Struct("<III B3x")
_MOST_SLICES = 22
"""As many as a sector holds."""
_UNUSED = 0
_RAW_SLICE = 2
"""The slice "c", by custom the whole disk or the whole partition, and then of type 0."""
# Sector 1 on most machines, sector 0 on the others.
_PLACES = (512, 64, 128)
_SECTOR_SIZES = (512, 1024, 2048, 4096)

_TYPES = {1: "bsd-swap", 7: "bsd-ufs", 8: "bsd-fat", 9: "bsd-lfs", 12: "bsd-iso9660", 14: "bsd-ados", 15: "bsd-hfs"}
_TYPES |= {17: "bsd-ext2", 18: "bsd-ntfs", 27: "bsd-zfs"}


@dataclass(frozen=True, slots=True)
class Disklabel:
    """A label. ``slices`` has index, code of the type, first sector and sectors of each slice in use.

    ``raw_start`` is the first sector of the slice "c". ``sound``: its checksum is right, and it counts no more slices
    than it has room for.
    """

    sector_size: int
    slices: tuple[tuple[int, int, int, int], ...]
    raw_start: int
    sound: bool


def read_bsd(reader: Reader) -> PartitionTable | None:
    """The label of a disk that has no other table, or None. Slice "a" is number 1, "c" number 3."""
    for place in _PLACES:
        label = read_label(reader, place)
        if label is not None:
            break
    else:
        return None
    # parted writes wrong ones, and neither the kernel nor libblkid looks.
    warnings = [] if label.sound else ["the checksum of the disklabel is wrong"]
    partitions: list[Partition] = []
    for index, kind, start, sectors in label.slices:
        unit = label.sector_size
        window = fit(index + 1, Window(start * unit, sectors * unit), reader.size, warnings)
        if window and window.size:
            partitions.append(_partition(index + 1, window, kind))
    warnings += overlaps(partitions)
    return PartitionTable("bsd", label.sector_size, None, tuple(partitions), limit_warnings(warnings))


def read_label(reader: Reader, place: int) -> Disklabel | None:
    """The label at byte ``place``, or None where there is none."""
    size = _HEADER.size + _MOST_SLICES * _ENTRY.size
    raw = reader.pread(size, place).ljust(size, b"\0")
    magic, sector_size, again, _, count = _HEADER.unpack_from(raw)
    if magic != _MAGIC or again != _MAGIC:
        return None
    used = raw[: _HEADER.size + min(count, _MOST_SLICES) * _ENTRY.size]
    checksum = 0
    for (word,) in struct.iter_unpack("<H", used):
        checksum ^= word
    return Disklabel(
        sector_size=sector_size if sector_size in _SECTOR_SIZES else SECTOR,
        slices=tuple(_slices(used)),
        raw_start=_ENTRY.unpack_from(raw, _HEADER.size + _RAW_SLICE * _ENTRY.size)[1],
        sound=count <= _MOST_SLICES and checksum == 0,
    )


def nested_slices(
    reader: Reader, parent: Partition, sector: int, first_number: int, warnings: list[str], *, relative: bool
) -> list[Partition]:
    """The slices of a label inside ``parent``, a partition of an MBR, numbered from ``first_number`` on.

    :param sector: bytes of the MBR's sectors
    :param relative: a slice "c" that starts at 0 means that all starts are counted from the partition's (FreeBSD)
    """
    label = read_label(reader, parent.window.offset + sector)
    if label is None:
        return []
    base = parent.window.offset if relative and label.raw_start == 0 else 0
    partitions: list[Partition] = []
    number = first_number
    for index, kind, start, sectors in label.slices:
        window = Window(base + start * sector, sectors * sector)
        if window == parent.window:
            continue
        if window.offset < parent.window.offset or window.end > parent.window.end:
            warnings.append(f"slice {chr(ord('a') + index)} is not inside partition {parent.number}: left out")
            continue
        if window.size:
            partitions.append(_partition(number, window, kind))
        number += 1
    return partitions


def _partition(number: int, window: Window, kind: int) -> Partition:
    return Partition(number, window, f"bsd:{kind:#04x}", _TYPES.get(kind), None)


def _slices(raw: bytes) -> Iterator[tuple[int, int, int, int]]:
    for index, at in enumerate(range(_HEADER.size, len(raw), _ENTRY.size)):
        sectors, start, _, kind = _ENTRY.unpack_from(raw, at)
        if kind != _UNUSED:
            yield index, kind, start, sectors
