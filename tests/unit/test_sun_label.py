from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.tables.read import PartitionTable, read_table
from pytest_imagemount.programs import run

from .disks import BytesReader, mbr_disk, sun_sector

if TYPE_CHECKING:
    from pathlib import Path

SLICES = [(0, 80, 2), (10, 160, 0x82), (0, 2048, 5), (0, 0, 0), (30, 240, 0x83)]


def read(disk: bytes | bytearray) -> PartitionTable:
    table = read_table(BytesReader(disk), "disk.img")
    assert table is not None
    return table


def places(table: PartitionTable) -> list[tuple[int, int, int]]:
    """Number, first sector and sectors of each partition."""
    return [(one.number, one.window.offset // 512, one.window.size // 512) for one in table.partitions]


def test_slices_start_at_cylinders_and_keep_their_numbers() -> None:
    table = read(mbr_disk({0: sun_sector(SLICES)}))
    assert (table.kind, table.sector_size, table.uuid, table.warnings) == ("sun", 512, None, ())
    assert places(table) == [(1, 0, 80), (2, 80, 160), (3, 0, 2048), (5, 240, 240)]
    assert [one.type for one in table.partitions] == ["sun:0x02", "sun:0x82", "sun:0x05", "sun:0x83"]
    assert [one.type_name for one in table.partitions] == ["sun-root", "swap", "sun-whole-disk", "linux"]
    assert [one.container for one in table.partitions] == [False, False, True, False]


def test_tags_of_a_label_that_vouches_for_none_are_not_believed() -> None:
    table = read(mbr_disk({0: sun_sector(SLICES, sane=False)}))
    assert {one.type for one in table.partitions} == {"sun:0x00"}
    assert len(table.partitions) == 4


def test_a_label_counts_its_slices() -> None:
    assert places(read(mbr_disk({0: sun_sector(SLICES, count=2)}))) == [(1, 0, 80), (2, 80, 160)]
    assert len(read(mbr_disk({0: sun_sector(SLICES, count=65535)})).partitions) == 4


def test_a_wrong_checksum_is_no_label() -> None:
    sector = bytearray(sun_sector(SLICES))
    sector[0] ^= 1
    assert read_table(BytesReader(mbr_disk({0: bytes(sector)})), "disk.img") is None


def test_slices_outside_the_disk_are_left_out_or_cut() -> None:
    table = read(mbr_disk({0: sun_sector([(250, 100, 2), (0xFFFFFFFF, 0xFFFFFFFF, 2)], heads=65535, track=65535)}))
    assert table.partitions == ()
    table = read(mbr_disk({0: sun_sector([(250, 100, 2)])}))
    assert places(table) == [(1, 2000, 48)]
    assert "cut" in table.warnings[0]


@pytest.mark.needs("sfdisk")
def test_sfdisk_agrees(tmp_path: Path) -> None:
    image = tmp_path / "sun.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    run(["sfdisk", "--quiet", str(image)], stdin=b"label: sun\nstart=16065,size=16065,type=83\nsize=16065,type=82\n")
    said = json.loads(run(["sfdisk", "--json", str(image)]))["partitiontable"]["partitions"]
    table = read(image.read_bytes())
    assert [(place[1], place[2], one.type) for place, one in zip(places(table), table.partitions, strict=True)] == [
        (one["start"], one["size"], f"sun:0x{one['type']:>02}") for one in said
    ]
    assert len(said) >= 2
