"""Partition tables as the factory writes them, against sfdisk and against the engine's reader."""

from __future__ import annotations

import os
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_imagemount.engine.reader import FileReader, Window
from pytest_imagemount.engine.tables.read import read_table
from pytest_imagemount.errors import RequestInvalid
from pytest_imagemount.factory import Partition, build_image
from pytest_imagemount.factory.layout import Extent, plan

from .image_readers import sfdisk_table

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_imagemount.engine.tables.partition_table import PartitionTable

MIB = 1 << 20
UUID = "12345678-9abc-4def-8123-456789abcdef"


def engine_table(image: Path) -> PartitionTable:
    with image.open("rb") as file:
        table = read_table(FileReader(file.fileno(), os.fstat(file.fileno()).st_size), str(image))
    assert table is not None
    return table


@pytest.mark.needs("sfdisk")
def test_sfdisk_reads_every_field_of_a_gpt(tmp_path: Path) -> None:
    image = build_image(
        tmp_path / "image",
        table="gpt",
        uuid=UUID.replace("1", "2"),
        partitions=[
            Partition(size="4M", type="esp", name="boot ü", uuid=UUID),
            {"size": 2 * MIB, "type": "root-x86-64", "attributes": 1 << 60 | 1 << 2, "start": "16M"},
            {"size": "1M"},
            {"size": "1M", "type": "21686148-6449-6e6f-744e-656564454649"},
        ],
    )
    found = sfdisk_table(image)
    assert found["id"] == UUID.replace("1", "2").upper()
    assert (found["label"], found["firstlba"], found["lastlba"]) == ("gpt", 34, image.stat().st_size // 512 - 34)
    parts = found["partitions"]
    assert isinstance(parts, list)
    assert [(part["start"], part["size"]) for part in parts] == [
        (2048, 8192),
        (32768, 4096),
        (36864, 2048),
        (38912, 2048),
    ]
    assert [part["type"] for part in parts] == [
        "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
        "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709",
        "0FC63DAF-8483-4772-8E79-3D69D8477DE4",
        "21686148-6449-6E6F-744E-656564454649",
    ]
    assert (parts[0]["name"], parts[0]["uuid"]) == ("boot ü", UUID.upper())
    assert parts[1]["attrs"] == "LegacyBIOSBootable GUID:60"
    assert len({part["uuid"] for part in parts}) == 4


@pytest.mark.needs("sfdisk")
def test_sfdisk_reads_every_field_of_an_mbr_with_logical_partitions(tmp_path: Path) -> None:
    image = build_image(
        tmp_path / "image",
        table="mbr",
        uuid="1234abcd",
        partitions=[
            Partition(size="1M", bootable=True, type=0x0C),
            {"size": "1M"},
            {"size": "1M", "type": "lvm"},
            {"size": "3M", "type": 0x82},
            {"size": "1M", "start": "16M"},
            {"size": "2M"},
        ],
    )
    found = sfdisk_table(image)
    assert (found["label"], found["id"]) == ("dos", "0x1234abcd")
    parts = found["partitions"]
    assert isinstance(parts, list)
    shown = [(part["node"].removeprefix(str(image)), part["start"], part["size"], part["type"]) for part in parts]
    assert shown == [
        ("1", 2048, 2048, "c"),
        ("2", 4096, 2048, "83"),
        ("3", 6144, 2048, "8e"),
        ("4", 8192, 32768, "f"),
        ("5", 10240, 6144, "82"),
        ("6", 32768, 2048, "83"),
        ("7", 36864, 4096, "83"),
    ]
    assert [part.get("bootable", False) for part in parts] == [True] + [False] * 6


def test_four_partitions_of_an_mbr_are_all_primary(tmp_path: Path) -> None:
    table = engine_table(build_image(tmp_path / "image", table="mbr", partitions=[{"size": "1M"}] * 4))
    assert [(part.number, part.logical) for part in table.partitions] == [(number, False) for number in (1, 2, 3, 4)]


# An MBR does not say what its sectors are: the system tests read one of 4096 bytes through a device that has them.
@pytest.mark.parametrize(("table", "sector_size"), [("gpt", 512), ("gpt", 4096), ("mbr", 512)])
@pytest.mark.needs("mke2fs", "debugfs")
def test_the_engine_reads_what_the_factory_wrote(tmp_path: Path, table: str, sector_size: int) -> None:
    image = build_image(
        tmp_path / "image",
        table=table,
        sector_size=sector_size,
        partitions=[{"fstype": "ext4", "size": "8M"}, {"size": "1M"}, {"size": "3M", "start": "20M"}],
    )
    found = engine_table(image)
    assert (found.kind, found.sector_size, found.warnings) == (table, sector_size, ())
    assert [part.window for part in found.partitions] == [
        Window(MIB, 8 * MIB),
        Window(9 * MIB, MIB),
        Window(20 * MIB, 3 * MIB),
    ]


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_each_copy_of_a_gpt_serves_without_the_other(tmp_path: Path, sector_size: int) -> None:
    image = build_image(tmp_path / "image", table="gpt", sector_size=sector_size, partitions=[{"size": "1M"}] * 3)
    whole = engine_table(image)
    size = image.stat().st_size
    for place in (sector_size, size - sector_size):
        data = bytearray(image.read_bytes())
        data[place : place + sector_size] = bytes(sector_size)
        damaged = tmp_path / "damaged"
        damaged.write_bytes(data)
        found = engine_table(damaged)
        assert found.partitions == whole.partitions
        assert found.warnings


@pytest.mark.parametrize("sector_size", [512, 4096])
def test_both_headers_of_a_gpt_name_each_other_and_their_checksums_hold(tmp_path: Path, sector_size: int) -> None:
    image = build_image(tmp_path / "image", table="gpt", sector_size=sector_size, partitions=[{"size": "1M"}])
    data = image.read_bytes()
    last = len(data) // sector_size - 1
    places = {}
    for here, other in ((1, last), (last, 1)):
        header = data[here * sector_size :][:92]
        fields = struct.unpack("<8sIIIIQQQQ16sQIII", header)
        assert fields[0] == b"EFI PART"
        assert fields[3] == zlib.crc32(header[:16] + bytes(4) + header[20:])
        assert fields[5:7] == (here, other)
        table = data[fields[10] * sector_size :][: fields[11] * fields[12]]
        assert fields[13] == zlib.crc32(table)
        places[here] = (fields[7], fields[8], fields[9], table)
    assert places[1] == places[last]
    assert data[510:512] == b"\x55\xaa"
    assert (data[446 + 4], struct.unpack_from("<II", data, 446 + 8)) == (0xEE, (1, last))


@settings(database=None)  # a checkout may be read-only
@given(
    table=st.sampled_from(["gpt", "mbr"]),
    sector_size=st.sampled_from([512, 4096]),
    sizes=st.lists(st.integers(1, 5000), max_size=12),
)
def test_planned_partitions_are_aligned_apart_and_inside(table: str, sector_size: int, sizes: list[int]) -> None:
    layout = plan(table, [Extent(size * sector_size) for size in sizes], None, sector_size)
    end = 34 * 512 if table == "gpt" else sector_size
    for _, window in layout.windows:
        assert window.offset % MIB == 0
        assert window.offset >= end
        end = window.end
    assert end + (33 * 512 if table == "gpt" else 0) <= layout.size
    assert layout.size % MIB == 0
    if layout.extended is not None:
        logical = [window for number, window in layout.windows if number > 4]
        assert layout.extended == Window(logical[0].offset - MIB, logical[-1].end - logical[0].offset + MIB)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"partitions": [{"size": "1M", "start": "1K"}]}, "before byte"),
        (
            {"partitions": [{"size": "4M"}, {"size": "1M", "start": "2M"}]},
            "partition 2 would begin before byte 5242880",
        ),
        ({"partitions": [{"size": 1000}]}, "512-byte sectors"),
        ({"partitions": [{"size": 512}], "sector_size": 4096}, "4096-byte sectors"),
        ({"partitions": [{"size": "1M", "start": 1_100_000}]}, "whole sectors"),
        ({"partitions": [{"size": "4M"}], "size": "5M"}, "with their table"),
        ({"partitions": [{"size": "1M"}], "size": 3 * MIB + 1}, "with their table"),
        ({"table": "mbr", "partitions": [{"size": "1M"}], "size": "3T"}, "use table='gpt'"),
        ({"partitions": [{}]}, "size must be given"),
        ({"partitions": [{"size": "1M", "sice": 1}]}, "partitions=sice: a partition has: fstype"),
        ({"partitions": [{"size": "1M", "content": {"a": "b"}}]}, "content=.*needs an fstype"),
        ({"partitions": [{"raw": b"x", "fstype": "ext4"}]}, "either raw bytes or an fstype"),
        ({"partitions": [{"raw": b"x" * 513, "size": 512}]}, "raw bytes are 513"),
        ({"partitions": [{"size": "1M", "bootable": True}]}, "table='mbr'"),
        ({"partitions": [{"size": "1M", "type": "root-x86-65"}]}, "root-x86-64"),
        ({"partitions": [{"size": "1M", "name": "n" * 37}]}, "36 characters"),
        ({"partitions": [{"size": "1M", "attributes": 1 << 64}]}, "64 bits"),
        ({"partitions": [{"size": "1M", "uuid": "12"}]}, "not a UUID"),
        ({"partitions": [{"size": "1M"}] * 129}, "holds 128"),
        ({"table": "mbr", "partitions": [{"size": "1M", "name": "x"}]}, "table='gpt'"),
        ({"table": "mbr", "partitions": [{"size": "1M", "uuid": UUID}]}, "table='gpt'"),
        ({"table": "mbr", "partitions": [{"size": "1M", "type": 5}]}, "by themselves"),
        ({"table": "mbr", "partitions": [{"size": "1M", "type": "root-x86-64"}]}, "such as 'linux'"),
        ({"table": "mbr", "partitions": [{"size": "1M"}], "uuid": UUID}, "eight hexadecimal digits"),
        ({"table": "zzz", "partitions": [{"size": "1M"}]}, "not 'gpt', 'mbr' or None"),
        ({"table": None, "partitions": [{"size": "1M"}]}, "give table="),
        ({"partitions": [{"size": "1M"}], "fstype": "ext4"}, "without a partition table"),
        ({"partitions": [{"size": "1M"}], "label": "x"}, "without a partition table"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        build_image(tmp_path / "image", **{"table": "gpt", **options})
    assert list(tmp_path.iterdir()) == []
