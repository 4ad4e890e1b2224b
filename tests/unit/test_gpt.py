from __future__ import annotations

import json
import uuid
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_imagemount.engine.reader import FileReader, Window
from pytest_imagemount.engine.tables.read import PartitionTable, read_table
from pytest_imagemount.errors import ImageMountError, PartitionTableInvalid
from pytest_imagemount.programs import run

from .disks import ESP, LINUX, ROOT_X86_64, BytesReader, gpt_disk, gpt_entry, le, mbr_entry, part_uuid, reseal

if TYPE_CHECKING:
    from pathlib import Path

TWO = [gpt_entry(1, ESP, 64, 127, "boot"), gpt_entry(2, ROOT_X86_64, 128, 1023, "Würzel")]


def read(disk: bytes | bytearray) -> PartitionTable:
    table = read_table(BytesReader(disk), "disk.img")
    assert table is not None
    return table


def test_partitions_have_their_window_type_name_and_identity() -> None:
    table = read(gpt_disk(TWO))
    assert (table.kind, table.sector_size, table.warnings) == ("gpt", 512, ())
    assert table.uuid == "11111111-2222-3333-4444-555555555555"
    boot, root = table.partitions
    assert (boot.number, boot.type_name, boot.label) == (1, "esp", "boot")
    assert boot.window == Window(64 * 512, 64 * 512)
    assert (root.type, root.type_name, root.label) == (str(ROOT_X86_64), "root-x86-64", "Würzel")
    assert root.uuid == str(part_uuid(2))


def test_sectors_of_4096_bytes_are_found_out() -> None:
    table = read(gpt_disk([gpt_entry(1, LINUX, 16, 31)], sector=4096, size=4 << 20))
    assert table.sector_size == 4096
    assert table.partitions[0].window == Window(16 * 4096, 16 * 4096)
    assert table.warnings == ()


def test_numbers_are_those_of_the_slots() -> None:
    table = read(gpt_disk([bytes(128), gpt_entry(2, LINUX, 128, 255), bytes(128), gpt_entry(4, LINUX, 64, 127)]))
    assert [(one.number, one.window.offset) for one in table.partitions] == [(2, 128 * 512), (4, 64 * 512)]


def test_entries_may_be_larger_than_128_bytes() -> None:
    table = read(gpt_disk(TWO, entry_size=512, count=16))
    assert [one.label for one in table.partitions] == ["boot", "Würzel"]


def test_a_gpt_without_partitions_is_a_table() -> None:
    assert read(gpt_disk([])).partitions == ()


def test_a_name_fills_all_72_bytes() -> None:
    table = read(gpt_disk([gpt_entry(1, LINUX, 64, 127, "x" * 36)]))
    assert table.partitions[0].label == "x" * 36


def test_a_name_of_broken_utf16_does_no_harm() -> None:
    entry = gpt_entry(1, LINUX, 64, 127)[:56] + b"\x00\xd8A\0".ljust(72, b"\0")
    label = read(gpt_disk([entry])).partitions[0].label
    assert label is not None
    assert json.dumps(label).encode()
    assert label.endswith("A")


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize(
    ("sector_number", "at", "what"),
    [
        (1, 0, "no header signature"),
        (1, 16, "has CRC"),
        (1, 24, "has CRC"),
        (1, 60, "has CRC"),
        (2, 130, "have CRC"),
    ],
    ids=["signature", "crc", "place", "disk guid", "entries"],
)
def test_the_backup_is_used_when_the_primary_is_corrupt(sector: int, sector_number: int, at: int, what: str) -> None:
    entries = [gpt_entry(1, ESP, 64, 127, "boot"), gpt_entry(2, ROOT_X86_64, 128, 900, "root")]
    disk = gpt_disk(entries, sector=sector, size=sector * 2048)
    disk[sector_number * sector + at] ^= 0xFF
    table = read(disk)
    assert [one.label for one in table.partitions] == ["boot", "root"]
    assert table.sector_size == sector
    (warning,) = table.warnings
    assert warning.startswith("the primary GPT is corrupt")
    assert what in warning


def test_a_corrupt_backup_is_a_warning() -> None:
    disk = gpt_disk(TWO)
    disk[-512 + 16] ^= 1
    table = read(disk)
    assert len(table.partitions) == 2
    assert "backup GPT is corrupt" in table.warnings[0]


def test_a_backup_that_differs_is_a_warning() -> None:
    disk, other = gpt_disk(TWO), gpt_disk(TWO[:1])
    disk[len(disk) // 2 :] = other[len(disk) // 2 :]
    table = read(disk)
    assert len(table.partitions) == 2
    assert "differs" in table.warnings[0]


def test_a_disk_that_grew_has_its_backup_where_the_primary_says() -> None:
    disk = gpt_disk(TWO)
    disk.extend(bytes(1 << 20))
    assert read(disk).warnings == ()
    # Only the entries of the primary are bad: its header still leads to the backup, far from the last sector.
    disk[2 * 512] ^= 1
    assert len(read(disk).partitions) == 2


def test_both_copies_corrupt_says_what_is_wrong_with_each() -> None:
    disk = gpt_disk(TWO)
    disk[512 + 16] ^= 1
    disk[-33 * 512 + 3] ^= 1
    with pytest.raises(PartitionTableInvalid) as caught:
        read(disk)
    text = str(caught.value)
    assert "disk.img" in text
    assert "primary: the header at byte 512 has CRC" in text
    assert f"backup: its entries at byte {len(disk) - 33 * 512} have CRC" in text


def test_a_protective_mbr_over_nothing_is_corrupt() -> None:
    disk = gpt_disk(TWO)
    disk[512:] = bytes(len(disk) - 512)
    with pytest.raises(PartitionTableInvalid, match="no header signature at byte 512"):
        read(disk)


def test_a_gpt_without_protective_mbr_is_none() -> None:
    disk = gpt_disk(TWO)
    disk[:512] = bytes(512)
    assert read_table(BytesReader(disk), "disk.img") is None


def test_the_gpt_wins_over_a_hybrid_mbr() -> None:
    disk = gpt_disk(TWO)
    disk[446:478] = mbr_entry(0x0C, 64, 64) + mbr_entry(0xEE, 1, 63)
    assert [one.label for one in read(disk).partitions] == ["boot", "Würzel"]


@pytest.mark.parametrize(
    ("first", "last", "warning"),
    [
        (4000, 5000, "beyond the end"),
        (200, 100, "before its start"),
        (5, (1 << 64) - 1, "beyond the end"),
        ((1 << 64) - 1, 7, "before its start"),
        ((1 << 64) - 8, (1 << 64) - 1, "beyond the end"),
    ],
)
def test_a_partition_outside_the_disk_is_left_out_and_the_others_stay(first: int, last: int, warning: str) -> None:
    table = read(gpt_disk([gpt_entry(1, LINUX, first, last), gpt_entry(2, LINUX, 64, 127)]))
    assert [one.number for one in table.partitions] == [2]
    assert warning in table.warnings[0]
    assert "partition 1" in table.warnings[0]


def test_partitions_of_a_truncated_disk_that_are_whole_can_be_used() -> None:
    table = read(gpt_disk(TWO)[: 512 * 512])
    assert [one.number for one in table.partitions] == [1]
    assert any("truncated" in warning for warning in table.warnings)
    assert any("backup GPT is corrupt" in warning for warning in table.warnings)


def test_overlapping_partitions_are_kept_with_a_warning() -> None:
    table = read(gpt_disk([gpt_entry(1, LINUX, 64, 127), gpt_entry(2, LINUX, 100, 200), gpt_entry(3, LINUX, 201, 300)]))
    assert [one.number for one in table.partitions] == [1, 2, 3]
    assert table.warnings == ("partition 2 overlaps partition 1",)


def test_a_partition_over_the_table_itself_is_a_warning() -> None:
    table = read(gpt_disk([gpt_entry(1, LINUX, 0, 63)]))
    assert "usable" in table.warnings[0]


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (84, le(127, 4), "127 bytes each"),
        (84, le(192, 4), "192 bytes each"),
        (84, le(1 << 30, 4), "1073741824 bytes each"),
        (84, le(0, 4), "0 bytes each"),
        (80, le(1 << 31, 4), "4 MiB is the most"),
        (80, le(40000, 4), "4 MiB is the most"),
        (72, le(1 << 63, 8), "outside the disk"),
        (72, le(16360, 8), "outside the disk"),
        (40, le(1 << 40, 8), "first usable sector behind its last"),
        (24, le(7, 8), "belongs at sector 7"),
        (12, le(91, 4), "its own length as 91 bytes"),
        (12, le(513, 4), "its own length as 513 bytes"),
    ],
)
def test_header_values_out_of_bounds_are_corrupt(at: int, value: bytes, reason: str) -> None:
    disk = gpt_disk(TWO, size=8 << 20)
    for place in (512, len(disk) - 512):
        header = disk[place : place + 92]
        header[at : at + len(value)] = value
        header[16:20] = bytes(4)
        header[16:20] = le(zlib.crc32(header), 4)
        disk[place : place + 92] = header
    with pytest.raises(PartitionTableInvalid) as caught:
        read(disk)
    assert caught.value.reason.count(reason) == 2


def test_endless_warnings_are_cut() -> None:
    table = read(gpt_disk([gpt_entry(n, LINUX, 9, 3) for n in range(1, 2049)], count=2048, size=4 << 20))
    assert len(table.warnings) == 33
    assert "2016 more" in table.warnings[-1]


def test_partitions_beyond_the_number_that_linux_has_are_left_out() -> None:
    table = read(gpt_disk([gpt_entry(n, LINUX, 3000, 3001) for n in range(1, 2049)], count=2048, size=4 << 20))
    assert len(table.partitions) == 255
    assert "more than 255 partitions" in table.warnings[0]


def test_attributes_are_read_and_named() -> None:
    attributes = 1 << 63 | 1 << 60 | 1 << 59 | 1 << 50 | 1
    first, second = read(
        gpt_disk([gpt_entry(1, LINUX, 64, 127, attributes=attributes), gpt_entry(2, LINUX, 128, 255)])
    ).partitions
    assert (first.no_auto, first.read_only, first.growfs) == (True, True, True)
    assert first.attribute_names == ("required", "bit-50", "grow-file-system", "read-only", "no-auto")
    assert (second.no_auto, second.read_only, second.growfs, second.attribute_names) == (False, False, False, ())


@pytest.mark.parametrize("sector", [512, 1024, 2048, 4096])
def test_every_sector_size_is_found_out_from_either_copy(sector: int) -> None:
    disk = gpt_disk([gpt_entry(1, LINUX, 64, 127, "it")], sector=sector, size=sector * 2048)
    assert (read(disk).sector_size, read(disk).warnings) == (sector, ())
    disk[sector : 2 * sector] = bytes(sector)
    table = read(disk)
    assert (table.sector_size, table.partitions[0].window.offset) == (sector, 64 * sector)
    assert "its backup was used" in table.warnings[0]


def test_a_sound_table_of_another_sector_size_does_not_hide_a_backup() -> None:
    """The primary at 512 is corrupt, at 4096 somebody planted one: what counts is the backup of the former."""
    disk = gpt_disk([gpt_entry(1, LINUX, 64, 127, "real")], size=4 << 20)
    planted = gpt_disk([gpt_entry(1, LINUX, 64, 127, "planted")], size=4 << 20, sector=4096)
    disk[4096:65536] = planted[4096:65536]
    table = read(disk)
    assert (table.sector_size, [one.label for one in table.partitions]) == (512, ["real"])


@given(position=st.integers(0, 33 * 512 + 511), value=st.integers(0, 255), keep_crc=st.booleans())
@settings(max_examples=300, deadline=1000)
def test_a_changed_byte_gives_a_table_or_an_error_of_ours(position: int, value: int, keep_crc: bool) -> None:
    disk = gpt_disk(TWO)
    disk[position] = value
    if keep_crc and position >= 1024:
        reseal(disk)
    try:
        table = read_table(BytesReader(disk), "disk.img")
    except ImageMountError:
        return
    for partition in table.partitions if table else ():
        assert 0 <= partition.window.offset < partition.window.end <= len(disk)
    if table:
        assert json.dumps(table.to_json())
        assert table.render()


@given(
    entries=st.lists(st.tuples(st.binary(min_size=128, max_size=128)), max_size=8),
    usable=st.tuples(st.integers(0, 1 << 63), st.integers(0, (1 << 64) - 1)),
)
@settings(max_examples=200, deadline=1000)
def test_any_entries_under_right_crcs_do_no_harm(entries: list[tuple[bytes]], usable: tuple[int, int]) -> None:
    disk = gpt_disk([entry for (entry,) in entries], count=8)
    disk[512 + 40 : 512 + 56] = le(usable[0], 8) + le(usable[1], 8)
    reseal(disk)
    try:
        table = read(disk)
    except PartitionTableInvalid:
        assert usable[0] > usable[1]
        return
    for partition in table.partitions:
        assert 0 <= partition.window.offset < partition.window.end <= len(disk)
    assert all(char.isprintable() or char == "\n" for char in table.render())
    assert json.dumps(table.to_json()).encode()


@pytest.mark.needs("sfdisk")
def test_sfdisk_agrees(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.touch()
    with image.open("r+b") as file:
        file.truncate(64 << 20)
    script = (
        b'label: gpt\nsize=4M,type=U,name="EFI"\nsize=8M,type=S\nstart=40M,size=1M,name="\xc3\xa4 b"\nsize=3M,type=R\n'
    )
    run(["sfdisk", "--quiet", str(image)], stdin=script)
    said = json.loads(run(["sfdisk", "--json", str(image)]))["partitiontable"]
    with image.open("rb") as file:
        table = read_table(FileReader(file.fileno(), 64 << 20), "disk.img")
    assert table is not None
    assert table.warnings == ()
    assert table.uuid == str(uuid.UUID(said["id"]))
    assert [
        (one.window.offset // 512, one.window.size // 512, one.type, one.uuid, one.label) for one in table.partitions
    ] == [
        (one["start"], one["size"], one["type"].lower(), one["uuid"].lower(), one.get("name"))
        for one in said["partitions"]
    ]
    assert [one.type_name for one in table.partitions] == ["esp", "swap", "linux-generic", "raid"]


@pytest.mark.needs("sfdisk")
def test_sfdisk_finds_nothing_wrong_with_the_builder(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(gpt_disk(TWO))
    said = json.loads(run(["sfdisk", "--json", str(image)]))["partitiontable"]
    assert [one["start"] for one in said["partitions"]] == [64, 128]
    assert said["label"] == "gpt"
