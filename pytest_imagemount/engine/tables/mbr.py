"""MBR partition tables, with the chain of logical partitions.

Sources: UEFI Specification 2.10, section 5.2; the kernel's block/partitions/msdos.c, whose numbering and bounds these
are; libblkid's dos.c for what is no table although it ends in the boot signature.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..reader import Window
from .bsd import nested_slices
from .partition_table import MOST_PARTITIONS, Partition, PartitionTable, fit, limit_warnings, overlaps
from .partition_types import MBR_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..reader import Reader

# The table is within the first 512 bytes of its sector, whatever the size of a sector is. That is also the size which
# the kernel assumes of a loop or NBD device.
SECTOR = 512

_SIGNATURE = b"\x55\xaa"
_ENTRIES_AT = 446
_ENTRY = struct.Struct("<B3sB3sII")
_EXTENDED = frozenset({0x05, 0x0F, 0x85})
_PROTECTIVE = 0xEE
_FREEBSD = "0xa5"
_HOLDS_DISKLABEL = frozenset({_FREEBSD, "0xa6", "0xa9"})
_FIRST_LOGICAL = 5
_MOST_EMPTY_LINKS = 100
_MOST_LINKS = 512


@dataclass(frozen=True, slots=True)
class _Entry:
    """A table entry; ``start`` and ``size`` in sectors, ``start`` counted from where the kind of entry says."""

    boot: int
    type: int
    start: int
    size: int

    @property
    def is_extended(self) -> bool:
        return self.type in _EXTENDED


@dataclass(frozen=True, slots=True)
class Mbr:
    """The first sector, known to be a partition table: the disk's id and the four entries."""

    disk_id: int
    entries: tuple[_Entry, ...]

    @property
    def is_protective(self) -> bool:
        """One entry says that the disk has a GPT."""
        return any(entry.type == _PROTECTIVE for entry in self.entries)

    def to_table(self, reader: Reader, sector: int = SECTOR) -> PartitionTable:
        """The table with its logical partitions, and with the slices of BSD disklabels inside of it.

        A partition that starts beyond the end of the disk is left out, one that only ends there is cut, and both are
        in the warnings: so the kernel does it. A chain of logical partitions that loops or leads out of the disk is
        followed up to there.

        :param sector: bytes that a sector has
        """
        warnings: list[str] = []
        partitions: list[Partition] = []
        for number, entry in enumerate(self.entries, start=1):
            if entry.size:
                partitions += self._partition(reader, sector, number, entry.start, entry, warnings)
        number = _FIRST_LOGICAL
        for extended in (entry for entry in self.entries if entry.is_extended and entry.size):
            for start, entry in _logical_entries(reader, sector, extended, warnings):
                if number > MOST_PARTITIONS:
                    warnings.append(f"there are more than {MOST_PARTITIONS} partitions")
                    break
                partitions += self._partition(reader, sector, number, start, entry, warnings)
                number += 1
        partitions = self._with_slices(reader, sector, partitions, number, warnings)
        return PartitionTable(
            kind="mbr",
            sector_size=sector,
            uuid=f"{self.disk_id:08x}",
            partitions=tuple(partitions),
            warnings=limit_warnings([*warnings, *overlaps(partitions)]),
        )

    def _partition(
        self, reader: Reader, sector: int, number: int, start: int, entry: _Entry, warnings: list[str]
    ) -> Iterator[Partition]:
        window = fit(number, Window(start * sector, entry.size * sector), reader.size, warnings)
        if window is not None:
            yield Partition(
                number=number,
                window=window,
                type=f"{entry.type:#04x}",
                type_name=MBR_TYPES.get(entry.type),
                uuid=f"{self.disk_id:08x}-{number:02x}",
                logical=number >= _FIRST_LOGICAL,
                container=entry.is_extended and number < _FIRST_LOGICAL,
            )

    def _with_slices(
        self, reader: Reader, sector: int, partitions: list[Partition], number: int, warnings: list[str]
    ) -> list[Partition]:
        """``partitions`` and the slices inside the primary ones, numbered after all others as the kernel does."""
        shown, slices = [], []
        for partition in partitions:
            found: list[Partition] = []
            if partition.type in _HOLDS_DISKLABEL and not partition.logical:
                relative = partition.type == _FREEBSD
                found = nested_slices(reader, partition, sector, number, warnings, relative=relative)
            shown.append(replace(partition, container=partition.container or bool(found)))
            slices += found
            number = slices[-1].number + 1 if found else number
        return [one for one in [*shown, *slices] if one.number <= MOST_PARTITIONS]


def read_mbr(reader: Reader) -> Mbr | None:
    """The partition table in the first sector, or None.

    The boot signature alone makes no table: FAT and NTFS have it too, and so has any file system with a boot loader in
    its first sector. So each boot indicator must be 0x00 or 0x80, one entry at least must be in use, and the sector
    must not be the boot sector of a FAT, exFAT or NTFS.
    """
    sector = reader.pread(SECTOR, 0)
    if len(sector) < SECTOR or sector[510:] != _SIGNATURE:
        return None
    entries = tuple(_entries(sector))
    if any(entry.boot not in (0x00, 0x80) for entry in entries) or not any(entry.size for entry in entries):
        return None
    mbr = Mbr(int.from_bytes(sector[440:444], "little"), entries)
    if not mbr.is_protective and _is_boot_sector(sector):
        return None
    return mbr


def _entries(sector: bytes) -> Iterator[_Entry]:
    for at in range(_ENTRIES_AT, 510, _ENTRY.size):
        boot, _, kind, _, start, size = _ENTRY.unpack_from(sector, at)
        yield _Entry(boot, kind, start, size)


def _is_boot_sector(sector: bytes) -> bool:
    """The sector starts a FAT, exFAT or NTFS: by name, or by a parameter block in which all values make sense.

    GRUB and others keep room for such a block in an MBR, with zeros in it: those make no sense.
    """
    if sector[3:11] in (b"NTFS    ", b"EXFAT   "):
        return True
    bytes_per_sector, per_cluster, reserved, fats = struct.unpack_from("<HBHB", sector, 11)
    media = sector[21]
    return (
        (sector[0] == 0xE9 or (sector[0] == 0xEB and sector[2] == 0x90))
        and bytes_per_sector in (512, 1024, 2048, 4096)
        and per_cluster > 0
        and not per_cluster & (per_cluster - 1)
        and reserved > 0
        and fats > 0
        and (media == 0xF0 or media >= 0xF8)
    )


def _logical_entries(
    reader: Reader, sector_size: int, extended: _Entry, warnings: list[str]
) -> Iterator[tuple[int, _Entry]]:
    """First sector on the disk, and entry, of each logical partition in an extended one.

    Each link of the chain is a sector like the MBR. Its partition is counted from the link itself, the next link from
    the start of the extended partition.
    """
    first, limit = extended.start, extended.start + extended.size
    here, here_size = first, extended.size
    seen: set[int] = set()
    empty = 0
    while True:
        if here in seen or empty > _MOST_EMPTY_LINKS:
            warnings.append(f"the chain of logical partitions goes round in circles at sector {here}")
            return
        if len(seen) == _MOST_LINKS:
            warnings.append(f"the chain of logical partitions has more than {_MOST_LINKS} links")
            return
        seen.add(here)
        sector = reader.pread(SECTOR, here * sector_size) if here * sector_size < reader.size else b""
        if len(sector) < SECTOR or sector[510:] != _SIGNATURE:
            warnings.append(f"the chain of logical partitions breaks off at sector {here}, where no table is")
            return
        entries = tuple(_entries(sector))
        empty += 1
        for index, entry in enumerate(entries):
            if not entry.size or entry.is_extended:
                continue
            start = here + entry.start
            # The last two entries of a link have no meaning, and some tools leave garbage there.
            if index >= 2 and (entry.start + entry.size > here_size or start < first or start + entry.size > limit):
                continue
            yield start, entry
            empty = 0
        link = next((entry for entry in entries if entry.size and entry.is_extended), None)
        if link is None:
            return
        here, here_size = first + link.start, link.size
