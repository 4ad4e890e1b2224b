"""Sun disklabels, of SPARC machines. Source: the kernel's block/partitions/sun.c, whose numbering this is."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ..reader import Window
from .partition_table import Partition, PartitionTable, fit, limit_warnings, overlaps

if TYPE_CHECKING:
    from ..reader import Reader

SECTOR = 512

_MAGIC = 0xDABE
_SLICES = 8
_VTOC = struct.Struct(">I8xH")
_TAG = struct.Struct(">HH")
_PLACE = struct.Struct(">II")
_VTOC_AT, _TAGS_AT, _SANITY_AT, _HEADS_AT, _PLACES_AT, _MAGIC_AT = 128, 142, 188, 436, 444, 508
_SANE = 0x600DDEEE
_WHOLE_DISK = 5

_TYPES = {
    0x01: "sun-boot",
    0x02: "sun-root",
    0x03: "sun-swap",
    0x04: "sun-usr",
    _WHOLE_DISK: "sun-whole-disk",
    0x06: "sun-stand",
    0x07: "sun-var",
    0x08: "sun-home",
    0x82: "swap",
    0x83: "linux",
    0x8E: "lvm",
    0xFD: "raid",
}


def read_sun(reader: Reader) -> PartitionTable | None:
    """The label, or None where there is none with a right checksum."""
    sector = reader.pread(SECTOR, 0)
    if len(sector) < SECTOR or int.from_bytes(sector[_MAGIC_AT : _MAGIC_AT + 2], "big") != _MAGIC:
        return None
    checksum = 0
    for (word,) in struct.iter_unpack(">H", sector):
        checksum ^= word
    if checksum:
        return None
    heads, sectors_per_track = struct.unpack_from(">HH", sector, _HEADS_AT)
    cylinder = heads * sectors_per_track * SECTOR
    count, tags = _read_tags(sector)
    warnings: list[str] = []
    partitions: list[Partition] = []
    for index in range(count):
        first_cylinder, sectors = _PLACE.unpack_from(sector, _PLACES_AT + index * _PLACE.size)
        if not sectors:
            continue
        number, kind = index + 1, tags[index]
        if window := fit(number, Window(first_cylinder * cylinder, sectors * SECTOR), reader.size, warnings):
            whole = kind == _WHOLE_DISK
            name = _TYPES.get(kind)
            partitions.append(Partition(number, window, f"sun:{kind:#04x}", name, None, container=whole))
    return PartitionTable("sun", SECTOR, None, tuple(partitions), limit_warnings([*warnings, *overlaps(partitions)]))


def _read_tags(sector: bytes) -> tuple[int, tuple[int, ...]]:
    """How many slices there are, and the tag of each: 0 where the label has none to be believed.

    A table of tags (VTOC) that is all zero is believed as well: Linux wrote such ones.
    """
    version, count = _VTOC.unpack_from(sector, _VTOC_AT)
    (sanity,) = struct.unpack_from(">I", sector, _SANITY_AT)
    sane = sanity == _SANE and version == 1 and count <= _SLICES
    tags = tuple(_TAG.unpack_from(sector, _TAGS_AT + index * _TAG.size)[0] for index in range(_SLICES))
    if not sane and (sanity or version or count):
        tags = (0,) * _SLICES
    return (count if sane else _SLICES), tags
