from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_imagemount.engine.reader import FileReader, Window
from pytest_imagemount.engine.tables.read import PartitionTable, read_table
from pytest_imagemount.programs import run

from .disks import BytesReader, le, mbr_disk, mbr_entry, mbr_sector

if TYPE_CHECKING:
    from pathlib import Path

LOGICAL = {
    0: mbr_sector([mbr_entry(0x83, 64, 64, boot=0x80), mbr_entry(0x05, 200, 1000)], disk_id=0xCAFE0001),
    200: mbr_sector([mbr_entry(0x83, 8, 50), mbr_entry(0x05, 100, 100)]),
    300: mbr_sector([mbr_entry(0x82, 8, 60), mbr_entry(0x05, 300, 100)]),
    500: mbr_sector([mbr_entry(0x0C, 8, 70)]),
}


def read(disk: bytes | bytearray) -> PartitionTable:
    table = read_table(BytesReader(disk), "disk.img")
    assert table is not None
    return table


def windows(table: PartitionTable) -> list[tuple[int, int, int]]:
    """Number, first sector and sectors of each partition."""
    return [(one.number, one.window.offset // 512, one.window.size // 512) for one in table.partitions]


def test_primary_and_logical_partitions_are_numbered_as_linux_does() -> None:
    table = read(mbr_disk(LOGICAL))
    assert (table.kind, table.sector_size, table.uuid, table.warnings) == ("mbr", 512, "cafe0001", ())
    assert windows(table) == [(1, 64, 64), (2, 200, 1000), (5, 208, 50), (6, 308, 60), (7, 508, 70)]
    assert [one.type for one in table.partitions] == ["0x83", "0x05", "0x83", "0x82", "0x0c"]
    assert [one.type_name for one in table.partitions] == ["linux", "extended", "linux", "swap", "fat32-lba"]
    assert [one.logical for one in table.partitions] == [False, False, True, True, True]
    assert [one.container for one in table.partitions] == [False, True, False, False, False]


def test_partuuids_are_disk_id_and_number_in_hex() -> None:
    entries = [mbr_entry(0x05, 10, 1000)]
    links: dict[int, bytes] = {
        10 + at * 10: mbr_sector([mbr_entry(0x83, 1, 2), mbr_entry(0x05, (at + 1) * 10, 10)]) for at in range(12)
    }
    table = read(mbr_disk({0: mbr_sector(entries, disk_id=0x0A), **links, 130: mbr_sector([])}))
    assert table.partitions[-1].uuid == "0000000a-10"
    assert table.partitions[-1].number == 16


def test_a_slot_that_is_not_in_use_keeps_its_number() -> None:
    table = read(mbr_disk({0: mbr_sector([bytes(16), mbr_entry(0x83, 64, 64), bytes(16), mbr_entry(0x07, 128, 9)])}))
    assert windows(table) == [(2, 64, 64), (4, 128, 9)]


def test_a_link_without_a_partition_gives_no_number() -> None:
    disk = mbr_disk({**LOGICAL, 300: mbr_sector([bytes(16), mbr_entry(0x05, 300, 100)])})
    assert windows(read(disk))[2:] == [(5, 208, 50), (6, 508, 70)]


def test_garbage_in_the_last_two_entries_of_a_link_is_ignored() -> None:
    link = mbr_sector([mbr_entry(0x83, 8, 50), bytes(16), mbr_entry(0x83, 5, 1 << 30), mbr_entry(0x41, 1 << 31, 7)])
    assert windows(read(mbr_disk({**LOGICAL, 200: link})))[2:] == [(5, 208, 50)]


def test_a_chain_that_loops_ends_with_a_warning() -> None:
    disk = mbr_disk({**LOGICAL, 500: mbr_sector([mbr_entry(0x0C, 8, 70), mbr_entry(0x05, 0, 100)])})
    table = read(disk)
    assert windows(table)[2:] == [(5, 208, 50), (6, 308, 60), (7, 508, 70)]
    assert "circles" in table.warnings[0]


def test_a_long_chain_of_empty_links_ends_with_a_warning() -> None:
    links = {10 + at: mbr_sector([bytes(16), mbr_entry(0x05, at + 1, 1)]) for at in range(1500)}
    table = read(mbr_disk({0: mbr_sector([mbr_entry(0x0F, 10, 1900)]), **links}))
    assert len(table.partitions) == 1
    assert "circles" in table.warnings[0]


def test_partitions_beyond_255_are_left_out() -> None:
    links = {10 + at * 4: mbr_sector([mbr_entry(0x83, 1, 2), mbr_entry(0x05, at * 4 + 4, 4)]) for at in range(450)}
    table = read(mbr_disk({0: mbr_sector([mbr_entry(0x05, 10, 1900)]), **links}))
    assert table.partitions[-1].number == 255
    assert "more than 255" in table.warnings[0]


@pytest.mark.parametrize("link", [bytes(512), b"\xff" * 512])
def test_a_chain_that_breaks_off_is_a_warning(link: bytes) -> None:
    table = read(mbr_disk({**LOGICAL, 300: link}))
    assert windows(table)[2:] == [(5, 208, 50)]
    assert "breaks off at sector 300" in table.warnings[0]


def test_a_chain_that_leads_out_of_the_disk_is_a_warning() -> None:
    table = read(mbr_disk({**LOGICAL, 200: mbr_sector([mbr_entry(0x83, 8, 50), mbr_entry(0x05, 0xFFFFFF00, 100)])}))
    assert windows(table)[2:] == [(5, 208, 50)]
    assert "breaks off" in table.warnings[0]


def test_a_partition_that_ends_beyond_the_disk_is_cut_and_one_that_starts_there_left_out() -> None:
    table = read(mbr_disk({0: mbr_sector([mbr_entry(0x83, 2000, 100), mbr_entry(0x83, 5000, 100)])}))
    assert windows(table) == [(1, 2000, 48)]
    assert "partition 1 ends" in table.warnings[0]
    assert "partition 2 starts" in table.warnings[1]


def test_overlapping_partitions_are_a_warning_but_an_extended_one_is_not() -> None:
    assert read(mbr_disk(LOGICAL)).warnings == ()
    table = read(mbr_disk({0: mbr_sector([mbr_entry(0x83, 64, 64), mbr_entry(0x83, 100, 100)])}))
    assert table.warnings == ("partition 2 overlaps partition 1",)


def test_an_entry_of_the_whole_disk_is_a_partition() -> None:
    """As on hybrid ISO images."""
    assert windows(read(mbr_disk({0: mbr_sector([mbr_entry(0x17, 0, 2048, boot=0x80)])}))) == [(1, 0, 2048)]


def fat_boot_sector(*, oem: bytes = b"mkfs.fat", jump: bytes = b"\xeb\x3c\x90") -> bytes:
    block = jump + oem + le(512, 2) + bytes([4]) + le(4, 2) + bytes([2]) + le(512, 2) + le(0, 2) + b"\xf8"
    return block.ljust(510, b"\0") + b"\x55\xaa"


def with_entries(sector: bytes) -> bytes:
    """The same with an entry where a table has them, as ``mkfs.fat --mbr`` writes it, or as boot code may look."""
    return sector[:446] + mbr_entry(0x0C, 0, 2048, boot=0x80).ljust(64, b"\0") + sector[510:]


@pytest.mark.parametrize(
    "sector",
    [
        bytes(512),
        b"\xff" * 512,
        fat_boot_sector(),
        with_entries(fat_boot_sector()),
        with_entries(fat_boot_sector(jump=b"\xe9\x10\x20")),
        with_entries(b"\xeb\x52\x90NTFS    ".ljust(510, b"\0") + b"\x55\xaa"),
        with_entries(b"\xeb\x76\x90EXFAT   ".ljust(510, b"\0") + b"\x55\xaa"),
        mbr_sector([]),
        mbr_sector([mbr_entry(0x83, 64, 64, boot=0x20)]),
        mbr_sector([mbr_entry(0x83, 64, 64), mbr_entry(0, 0, 0, boot=0x01)]),
        mbr_sector([mbr_entry(0x83, 64, 64)])[:510] + b"\0\0",
        mbr_sector([mbr_entry(0x83, 64, 64)])[:511],
    ],
    ids=[
        "zeros",
        "ones",
        "FAT",
        "FAT with entries",
        "FAT near jump",
        "NTFS",
        "exFAT",
        "no entry",
        "bad indicator",
        "bad last indicator",
        "no signature",
        "short disk",
    ],
)
def test_what_is_no_table(sector: bytes) -> None:
    size = len(sector) if len(sector) < 512 else 1 << 20
    assert read_table(BytesReader(mbr_disk({0: sector}, size=size)), "disk.img") is None


def test_a_boot_loader_with_an_empty_parameter_block_is_a_table() -> None:
    """GRUB's boot sector starts with a jump over such a block."""
    sector = b"\xeb\x63\x90" + mbr_sector([mbr_entry(0x83, 64, 64)])[3:]
    assert windows(read(mbr_disk({0: sector}))) == [(1, 64, 64)]


@pytest.mark.needs("mkfs.vfat")
@pytest.mark.parametrize("options", [(), ("--mbr=yes",), ("-F", "32")], ids=["plain", "fake table", "FAT32"])
def test_a_fat_made_by_mkfs_is_no_table(tmp_path: Path, options: tuple[str, ...]) -> None:
    image = tmp_path / "fat.img"
    image.write_bytes(bytes(40 << 20))
    run(["mkfs.vfat", *options, str(image)])
    assert image.read_bytes()[510:512] == b"\x55\xaa"
    with image.open("rb") as file:
        assert read_table(FileReader(file.fileno(), 40 << 20), "fat.img") is None


@given(st.dictionaries(st.sampled_from([0, 200, 300, 500]), st.lists(st.binary(min_size=16, max_size=16), max_size=4)))
@settings(max_examples=300, deadline=2000)
def test_any_entries_do_no_harm(sectors: dict[int, list[bytes]]) -> None:
    masked = {
        place: mbr_sector(
            [
                bytes([entry[0] & 0x80, *entry[1:4], entry[4] if entry[4] != 0xEE else 5, *entry[5:]])
                for entry in entries
            ]
        )
        for place, entries in sectors.items()
    }
    table = read_table(BytesReader(mbr_disk({**LOGICAL, **masked})), "disk.img")
    for partition in table.partitions if table else ():
        assert 0 <= partition.window.offset < partition.window.end <= 1 << 20
    if table:
        assert len(table.partitions) <= 255
        assert json.dumps(table.to_json())
        assert table.render()


@given(st.integers(0, 1 << 32))
@settings(max_examples=50, deadline=2000)
def test_a_maze_of_links_ends(seed: int) -> None:
    """Each sector is a link with a partition that leads to any other."""
    maze = random.Random(seed)
    links = {
        place: mbr_sector(
            [mbr_entry(maze.choice([0, 5, 0x83]), maze.randrange(2048), maze.choice([0, 1, 9])) for _ in range(4)]
        )
        for place in range(1, 2048)
    }
    table = read(mbr_disk({0: mbr_sector([mbr_entry(0x05, 1, 2047)] * 4), **links}))
    assert len(table.partitions) <= 255


@pytest.mark.needs("sfdisk")
def test_sfdisk_agrees(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(64 << 20))
    script = b"label: dos\nlabel-id: 0x12345678\nsize=8M,type=c,bootable\nsize=10M\ntype=5\nsize=5M\n,6M,82\n,7M\n"
    run(["sfdisk", "--quiet", str(image)], stdin=script)
    said = json.loads(run(["sfdisk", "--json", str(image)]))["partitiontable"]
    with image.open("rb") as file:
        table = read_table(FileReader(file.fileno(), 64 << 20), "disk.img")
    assert table is not None
    assert (table.uuid, table.warnings) == ("12345678", ())
    assert windows(table) == [
        (int(one["node"].removeprefix(str(image))), one["start"], one["size"]) for one in said["partitions"]
    ]
    assert [one.type for one in table.partitions] == [f"{int(one['type'], 16):#04x}" for one in said["partitions"]]
    assert table.partitions[0].window == Window(1 << 20, 8 << 20)


@pytest.mark.needs("libblkid")
@pytest.mark.parametrize("sector", [512, 1024, 2048, 4096])
def test_the_sector_size_is_told_by_what_lies_where_a_partition_starts(sector: int) -> None:
    table = mbr_sector([mbr_entry(0x83, 64, 64), mbr_entry(0x83, 200, 100)])
    disk = mbr_disk({0: table, 200: SWAP_PAGE}, size=1 << 24, sector=sector)
    read_back = read(disk)
    assert (read_back.sector_size, read_back.partitions[1].window) == (sector, Window(200 * sector, 100 * sector))


@pytest.mark.parametrize("sector", [512, 1024, 2048, 4096])
def test_the_sector_size_is_told_by_the_chain_of_logical_partitions(sector: int) -> None:
    disk = mbr_disk(LOGICAL, size=1 << 24, sector=sector)
    table = read(disk)
    assert (table.sector_size, table.warnings) == (sector, ())
    assert [one.window.offset // sector for one in table.partitions] == [64, 200, 208, 308, 508]


def test_sectors_are_512_bytes_where_nothing_tells() -> None:
    assert read(mbr_disk({0: mbr_sector([mbr_entry(0x83, 64, 64)])}, size=1 << 24)).sector_size == 512


SWAP_PAGE = (bytes(1024) + le(1, 4) + le(99, 4)).ljust(4086, b"\0") + b"SWAPSPACE2"
