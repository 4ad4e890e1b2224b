from __future__ import annotations

import pytest

from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.tables.read import PartitionTable, read_table

from .disks import BytesReader, apple_disk, mbr_entry, mbr_sector
from .tables_of_others import MAC, unpack

MAP = [
    (1, 63, b"Apple", b"Apple_partition_map"),
    (64, 100, b"MacOS", b"Apple_HFS"),
    (164, 500, b"Linux \x8a", b"Apple_UNIX_SVR2"),
]


def read(disk: bytes | bytearray) -> PartitionTable:
    table = read_table(BytesReader(disk), "disk.img")
    assert table is not None
    return table


@pytest.mark.parametrize("block", [512, 1024, 2048, 4096])
def test_entries_are_counted_with_that_of_the_map_itself(block: int) -> None:
    table = read(apple_disk(MAP, block=block, size=block * 1000))
    assert (table.kind, table.sector_size, table.uuid, table.warnings) == ("apple", block, None, ())
    assert [(one.number, one.window) for one in table.partitions] == [
        (1, Window(block, 63 * block)),
        (2, Window(64 * block, 100 * block)),
        (3, Window(164 * block, 500 * block)),
    ]
    assert [one.type for one in table.partitions] == ["Apple_partition_map", "Apple_HFS", "Apple_UNIX_SVR2"]
    assert [one.label for one in table.partitions] == ["Apple", "MacOS", "Linux ä"]
    assert "Apple partition map, " in table.render()


def test_a_map_in_blocks_of_512_is_found_behind_a_driver_of_2048() -> None:
    table = read(apple_disk(MAP, declared=2048))
    assert (table.sector_size, len(table.partitions)) == (512, 3)


def test_an_mbr_in_the_same_sector_wins() -> None:
    disk = apple_disk(MAP)
    disk[446:512] = mbr_sector([mbr_entry(0x83, 64, 64)])[446:]
    assert read(disk).kind == "mbr"


def test_a_map_that_breaks_off_gives_what_is_there() -> None:
    table = read(apple_disk(MAP, count=5))
    assert len(table.partitions) == 3
    assert table.warnings == ("the map breaks off at entry 4 of 5",)


def test_a_map_that_claims_billions_of_entries_is_read_up_to_255() -> None:
    entries = [(64, 1, b"x", b"y")] * 600
    table = read(apple_disk(entries, count=0xFFFFFFFF))
    assert table.partitions[-1].number == 255
    assert "claims 4294967295 entries" in table.warnings[0]


def test_entries_outside_the_disk_are_left_out_or_cut() -> None:
    table = read(apple_disk([(2000, 100, b"a", b"b"), (0xFFFFFFFF, 0xFFFFFFFF, b"c", b"d"), (5, 0, b"e", b"f")]))
    assert [(one.number, one.window.end) for one in table.partitions] == [(1, 1 << 20)]
    assert "partition 1 ends" in table.warnings[0]
    assert "partition 2 starts" in table.warnings[1]


@pytest.mark.parametrize("declared", [0, 1, 513, 8192, 65535])
def test_a_block_size_that_no_disk_has_is_no_map(declared: int) -> None:
    disk = apple_disk([], declared=declared)
    disk[declared : declared + 2] = b"PM"
    assert read_table(BytesReader(disk), "disk.img") is None


def test_a_name_that_fills_its_field_ends_with_it() -> None:
    table = read(apple_disk([(1, 1, b"n" * 32, b"t" * 32)]))
    assert (table.partitions[0].label, table.partitions[0].type) == ("n" * 32, "t" * 32)


def test_what_parted_makes_is_read_as_libblkid_does() -> None:
    """``partx`` lists the same numbers, places, types and names."""
    table = read(unpack(MAC, 16 << 20))
    assert [
        (one.number, one.window.offset // 512, one.window.size // 512, one.type, one.label) for one in table.partitions
    ] == [
        (1, 1, 63, "Apple_partition_map", "Apple"),
        (2, 2048, 8192, "Apple_HFS", "one"),
        (3, 10240, 8192, "Apple_UNIX_SVR2", "two"),
        (4, 64, 1984, "Apple_Free", "Extra"),
        (5, 18432, 14336, "Apple_Free", "Extra"),
    ]
    assert table.warnings == ()
