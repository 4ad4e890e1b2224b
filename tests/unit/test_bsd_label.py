from __future__ import annotations

import pytest

from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.tables.read import PartitionTable, read_table

from .disks import BytesReader, bsd_label, mbr_disk, mbr_entry, mbr_sector
from .tables_of_others import BSD, BSD_IN_MBR, unpack

UFS, SWAP = 7, 1
SLICES = [(16, 100, UFS), (200, 300, SWAP), (0, 2048, 0), (600, 50, 27)]


def read(disk: bytes | bytearray) -> PartitionTable:
    table = read_table(BytesReader(disk), "disk.img")
    assert table is not None
    return table


def places(table: PartitionTable) -> list[tuple[int, int, int, str]]:
    """Number, first sector, sectors and type of each partition."""
    return [(one.number, one.window.offset // 512, one.window.size // 512, one.type) for one in table.partitions]


def with_label(label: bytes, place: int = 512) -> bytearray:
    disk = bytearray(1 << 20)
    disk[place : place + len(label)] = label
    return disk


@pytest.mark.parametrize("place", [512, 64, 128])
def test_a_slice_has_the_number_of_its_letter(place: int) -> None:
    table = read(with_label(bsd_label(SLICES), place))
    assert (table.kind, table.sector_size, table.uuid, table.warnings) == ("bsd", 512, None, ())
    assert places(table) == [(1, 16, 100, "bsd:0x07"), (2, 200, 300, "bsd:0x01"), (4, 600, 50, "bsd:0x1b")]
    assert [one.type_name for one in table.partitions] == ["bsd-ufs", "bsd-swap", "bsd-zfs"]
    assert table.render().startswith("BSD disklabel, 512-byte sectors\n")


def test_places_are_counted_in_the_sectors_that_the_label_gives() -> None:
    table = read(with_label(bsd_label([(4, 8, UFS)], sector=4096)))
    assert table.sector_size == 4096
    assert table.partitions[0].window == Window(4 * 4096, 8 * 4096)


@pytest.mark.parametrize("sector", [0, 1, 511, 8192, 0xFFFFFFFF])
def test_an_absurd_sector_size_counts_as_512(sector: int) -> None:
    assert places(read(with_label(bsd_label([(16, 100, UFS)], sector=sector)))) == [(1, 16, 100, "bsd:0x07")]


def test_a_wrong_checksum_is_a_warning() -> None:
    table = read(with_label(bsd_label(SLICES, good=False)))
    assert len(table.partitions) == 3
    assert table.warnings == ("the checksum of the disklabel is wrong",)


@pytest.mark.parametrize("at", [512, 512 + 132])
def test_one_magic_number_alone_is_no_label(at: int) -> None:
    disk = with_label(bsd_label(SLICES))
    disk[at] ^= 1
    assert read_table(BytesReader(disk), "disk.img") is None


def test_a_label_that_counts_thousands_of_slices_is_read_as_far_as_it_has_room() -> None:
    table = read(with_label(bsd_label([(16, 1, UFS)] * 22, count=65535)))
    assert table.partitions[-1].number == 22


def test_slices_outside_the_disk_are_left_out_or_cut() -> None:
    table = read(with_label(bsd_label([(2000, 100, UFS), (0xFFFFFFFF, 0xFFFFFFFF, UFS), (9, 0, UFS)])))
    assert places(table) == [(1, 2000, 48, "bsd:0x07")]
    assert "partition 1 ends" in table.warnings[0]
    assert "partition 2 starts" in table.warnings[1]


def in_mbr(label: bytes, *, kind: int = 0xA5) -> bytearray:
    """An MBR with a logical partition, number 5, and the label in partition 1: sectors 100 to 1099."""
    table = mbr_sector([mbr_entry(kind, 100, 1000), mbr_entry(0x05, 1200, 400)], disk_id=0xAB)
    return mbr_disk({0: table, 101: label, 1200: mbr_sector([mbr_entry(0x83, 8, 50)])})


@pytest.mark.parametrize(("kind", "name"), [(0xA5, "freebsd"), (0xA6, "openbsd"), (0xA9, "netbsd")])
def test_slices_inside_an_mbr_follow_the_logical_partitions(kind: int, name: str) -> None:
    table = read(in_mbr(bsd_label([(116, 100, UFS), (300, 50, SWAP), (100, 1000, UFS)]), kind=kind))
    assert places(table) == [
        (1, 100, 1000, f"{kind:#04x}"),
        (2, 1200, 400, "0x05"),
        (5, 1208, 50, "0x83"),
        (6, 116, 100, "bsd:0x07"),
        (7, 300, 50, "bsd:0x01"),
    ]
    assert (table.kind, table.warnings, table.partitions[0].type_name) == ("mbr", (), name)
    assert [one.container for one in table.partitions] == [True, True, False, False, False]
    assert [one.uuid for one in table.partitions] == ["000000ab-01", "000000ab-02", "000000ab-05", None, None]


def test_freebsd_counts_from_its_partition_where_the_slice_c_starts_at_0() -> None:
    label = bsd_label([(16, 100, UFS), (200, 50, SWAP), (0, 1000, 0)])
    assert places(read(in_mbr(label)))[3:] == [(6, 116, 100, "bsd:0x07"), (7, 300, 50, "bsd:0x01")]
    table = read(in_mbr(label, kind=0xA6))
    assert len(table.partitions) == 4
    assert table.warnings == ("slice a is not inside partition 1: left out",)


@pytest.mark.parametrize("outside", [(99, 10, UFS), (1099, 2, UFS), (0xFFFFFFFF, 0xFFFFFFFF, UFS)])
def test_a_slice_that_leads_out_of_its_partition_is_left_out(outside: tuple[int, int, int]) -> None:
    table = read(in_mbr(bsd_label([outside, (116, 100, UFS)]), kind=0xA6))
    assert places(table)[3:] == [(6, 116, 100, "bsd:0x07")]
    assert table.warnings == ("slice a is not inside partition 1: left out",)


def test_a_partition_without_a_label_stays_what_it_is() -> None:
    table = read(in_mbr(b""))
    assert [one.container for one in table.partitions] == [False, True, False]


def test_a_label_in_a_partition_of_another_type_is_not_looked_for() -> None:
    assert len(read(in_mbr(bsd_label([(116, 100, UFS)]), kind=0x83)).partitions) == 3


def test_what_parted_makes_is_read_as_libblkid_does() -> None:
    table = read(unpack(BSD, 16 << 20))
    assert places(table) == [(1, 2048, 8192, "bsd:0x08"), (2, 10240, 8192, "bsd:0x08")]


def test_what_fdisk_makes_inside_an_mbr_is_read_as_libblkid_does() -> None:
    assert places(read(unpack(BSD_IN_MBR, 64 << 20))) == [
        (1, 2048, 40960, "0xa5"),
        (2, 43008, 88064, "0x83"),
        (5, 2048, 8193, "bsd:0x07"),
        (6, 2048, 16385, "bsd:0x01"),
        (7, 2048, 4097, "bsd:0x07"),
    ]
