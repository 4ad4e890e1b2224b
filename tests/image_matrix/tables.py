"""Disks of the matrix: a partition table, and blocks of bytes in its partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_imagemount.factory import Partition, build_image
from tests.unit.disks import apple_disk, bsd_label, mbr_disk, sun_sector

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_MIB = 1 << 20
_SECTOR = 512
_SUN_CYLINDER = 8  # sectors, as tests.unit.disks.sun_sector has it by default
_BEFORE_LOGICAL = 3  # primary partitions; a fourth is the extended one
_FIRST_LOGICAL = 5


def make_disk(table: str, blocks: Sequence[bytes], path: Path) -> int | None:
    """Write a disk with ``blocks``, whole numbers of MiB, in partitions that follow each other.

    :returns: the number of the first of them; None where there is no table, and so one block
    """
    match table:
        case "none":
            (block,) = blocks
            path.write_bytes(block)
            return None
        case "mbr" | "gpt" | "gpt-4096":
            size = 4096 if table == "gpt-4096" else _SECTOR
            build_image(path, table=table[:3], partitions=[Partition(raw=block) for block in blocks], sector_size=size)
            return 1
        case "mbr-logical":
            before = [Partition(size=_MIB) for _ in range(_BEFORE_LOGICAL)]
            logical = [*(Partition(raw=block) for block in blocks), Partition(size=_MIB)]
            build_image(path, table="mbr", partitions=[*before, *logical])
            return _FIRST_LOGICAL
        case _:
            return _make_foreign_disk(table, blocks, path)


def _make_foreign_disk(table: str, blocks: Sequence[bytes], path: Path) -> int:
    """A table that the factory does not write; the blocks begin at 2 MiB, and their numbers at 2."""
    places = []
    end = 2 * _MIB
    for block in blocks:
        places.append(end)
        end += len(block)
    sectors = [(place // _SECTOR, len(block) // _SECTOR) for place, block in zip(places, blocks, strict=True)]
    size = end + _MIB
    if table == "apple":
        listed = [(start, count, b"Linux", b"Apple_UNIX_SVR2") for start, count in sectors]
        disk = apple_disk([(1, 63, b"Apple", b"Apple_partition_map"), *listed], size=size)
    elif table == "bsd":
        disk = mbr_disk({1: bsd_label([(64, 64, 1), *((start, count, 17) for start, count in sectors)])}, size=size)
    else:
        assert table == "sun"
        slices = [(start // _SUN_CYLINDER, count, 0x83) for start, count in sectors]
        disk = mbr_disk({0: sun_sector([(0, 80, 0x82), *slices])}, size=size)
    for place, block in zip(places, blocks, strict=True):
        disk[place : place + len(block)] = block
    path.write_bytes(disk)
    return 2
