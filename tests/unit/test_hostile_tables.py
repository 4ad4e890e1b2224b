"""Tables made to do harm: an error of ours or a right choice, bounded reads, text that is safe to print."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_imagemount.engine.tables.read import PartitionTable, read_table
from pytest_imagemount.engine.tables.selection import select
from pytest_imagemount.errors import PartitionNotFound, PartitionRequired, PartitionTableInvalid
from tests.fuzz.tables import MOST_BYTES, fuzz_one, seeds

from .disks import (
    LINUX,
    BytesReader,
    CountingReader,
    gpt_disk,
    gpt_entry,
    gpt_header,
    le,
    mbr_disk,
    mbr_entry,
    mbr_sector,
    reseal,
)

SEEDS = seeds()


def read(disk: bytes | bytearray) -> PartitionTable:
    table = read_table(BytesReader(disk), "disk.img")
    assert table is not None
    return table


@pytest.mark.parametrize("name", SEEDS)
def test_a_seed_is_a_table_without_warnings(name: str) -> None:
    table = read(SEEDS[name])
    assert table.kind == name.partition("-")[0]
    assert table.partitions
    assert table.warnings == ()
    fuzz_one(SEEDS[name])


NUMBERS = st.one_of(
    st.sampled_from([0, 1, 2, 127, 128, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 32, 1 << 63, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)
EDITS = st.tuples(
    st.one_of(
        st.integers(0, 40 << 10), st.sampled_from([440, 446, 450, 454, 458, 510, 524, 584, 592, 596, 1024, 1056])
    ),
    st.sampled_from([1, 2, 4, 8]),
    NUMBERS,
)


@given(name=st.sampled_from(sorted(SEEDS)), edits=st.lists(EDITS, min_size=1, max_size=6))
@settings(max_examples=400, deadline=5000)
def test_a_table_with_absurd_numbers_does_no_harm(name: str, edits: list[tuple[int, int, int]]) -> None:
    disk = bytearray(SEEDS[name])
    for at, width, number in edits:
        disk[at : at + width] = le(number & (1 << 8 * width) - 1, width)
    fuzz_one(bytes(disk))


@given(data=st.binary(max_size=2048), signature=st.sampled_from([b"", b"ER\2\0", b"\xda\xbe", b"\x57\x45\x56\x82"]))
@settings(max_examples=200, deadline=5000)
def test_any_bytes_do_no_harm(data: bytes, signature: bytes) -> None:
    fuzz_one(signature + data)
    fuzz_one((data[:510].ljust(510, b"\0") + b"\x55\xaa" + data[510:]).ljust(4096, b"\0"))


def endless_gpt(sector: int, disk: bytearray) -> None:
    """Write a header for sectors of ``sector`` bytes whose 4 MiB of entries are elsewhere and have another CRC."""
    last = len(disk) // sector - 1
    for place, other in ((1, last - 1), (last - 1, 1), (last, 1)):
        header = gpt_header(place, other, (8, last - 8), 64, b"other", count=1 << 15, entry_size=128)
        disk[place * sector : place * sector + 92] = header


def test_a_gpt_of_every_sector_size_with_the_largest_arrays_is_read_within_bounds() -> None:
    disk = gpt_disk([], size=16 << 20)
    for sector in (512, 1024, 2048, 4096):
        endless_gpt(sector, disk)
    reader = CountingReader(disk, len(disk))
    with pytest.raises(PartitionTableInvalid):
        read_table(reader, "disk.img")
    assert 16 << 20 < reader.taken <= MOST_BYTES
    assert reader.largest <= 4 << 20


@pytest.mark.parametrize(
    ("count", "size"), [(0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 128), (1, 0), (4, 1 << 31), (128, 64)]
)
def test_a_gpt_of_absurd_entries_is_refused_before_they_are_read(count: int, size: int) -> None:
    disk = gpt_disk([], size=1 << 20)
    last = len(disk) // 512 - 1
    for place, other in ((1, last), (last, 1)):
        header = gpt_header(place, other, (34, last - 34), 2, b"", count=count, entry_size=size)
        disk[place * 512 : place * 512 + 92] = header
    reader = CountingReader(disk, len(disk))
    with pytest.raises(PartitionTableInvalid, match=r"bytes each|4 MiB is the most"):
        read_table(reader, "disk.img")
    assert reader.taken < 64 << 10


def test_a_gpt_that_counts_no_entries_is_an_empty_table() -> None:
    disk = gpt_disk([gpt_entry(1, LINUX, 64, 127)])
    disk[512 + 80 : 512 + 84] = le(0, 4)
    reseal(disk)
    table = read(disk)
    assert table.partitions == ()
    with pytest.raises(PartitionRequired, match="without a usable partition"):
        select(table, None, "disk.img", probe=lambda _: None)
    with pytest.raises(PartitionNotFound):
        select(table, "auto", "disk.img", probe=lambda _: None)


@pytest.mark.parametrize("sector", [512, 4096])
def test_entries_that_overflow_64_bits_are_left_out(sector: int) -> None:
    most = (1 << 64) - 1
    disk = gpt_disk([gpt_entry(1, LINUX, most, most), gpt_entry(2, LINUX, 0, most)], sector=sector, size=4 << 20)
    assert read(disk).partitions == ()


def test_mbr_entries_that_overflow_32_bits_are_left_out_or_cut() -> None:
    most = 0xFFFFFFFF
    table = read(mbr_disk({0: mbr_sector([mbr_entry(0x83, most, most), mbr_entry(0x83, 64, most)])}))
    assert [(one.number, one.window.end) for one in table.partitions] == [(2, 1 << 20)]


def test_a_deep_chain_is_followed_within_bounds() -> None:
    """Links without a partition between ones with: as many as a chain may have for each partition that it gives."""
    links: dict[int, bytes] = {}
    for at in range(1900):
        entries = [mbr_entry(0x83, 0, 1) if at % 90 == 89 else bytes(16), mbr_entry(0x05, at + 1, 1)]
        links[10 + at] = mbr_sector(entries)
    reader = CountingReader(mbr_disk({0: mbr_sector([mbr_entry(0x05, 10, 1900)] * 4), **links}), 1 << 40)
    table = read_table(reader, "disk.img")
    assert table is not None
    assert any("more than 512 links" in warning for warning in table.warnings)
    assert reader.reads < 10_000


def test_four_extended_partitions_that_lead_to_each_other_end() -> None:
    ring = {at: mbr_sector([mbr_entry(0x83, 1, 1), mbr_entry(0x05, (at + 10) % 40, 10)]) for at in (100, 110, 120, 130)}
    table = read(mbr_disk({0: mbr_sector([mbr_entry(0x05, at, 40) for at in (100, 110, 120, 130)]), **ring}))
    assert len(table.partitions) <= 255
    assert any("circles" in warning or "breaks off" in warning for warning in table.warnings)


NASTY = {
    "escape": "\x1b[2J\x1b]0;x\x07",
    "newline": "a\r\nPartition 9\x85\u2028",
    "bidi": "\u202egnp.exe\u2066",
    "zero width": "a\u200bb\ufeff",
    "format": "\U000e0041\u00ad",
    "quote": "\"'\\",
}


@pytest.mark.parametrize("name", NASTY)
def test_a_label_cannot_do_harm_where_it_is_shown(name: str) -> None:
    label = NASTY[name]
    table = read(gpt_disk([gpt_entry(1, LINUX, 64, 127, label)]))
    assert table.partitions[0].label == label
    assert all(char.isprintable() or char == "\n" for char in table.render())
    assert len(table.render().splitlines()) == 3
    text = json.dumps(table.to_json())
    assert text.isascii()
    assert json.loads(text)["partitions"][0]["label"] == label
    for wanted in (None, 9, f"PARTLABEL={label}?"):
        with pytest.raises(PartitionNotFound) as caught:
            select(table, wanted, "disk.img", probe=lambda _: None)
        assert all(char.isprintable() or char == "\n" for char in str(caught.value))
    assert select(table, f"PARTLABEL={label}", "disk.img", probe=lambda _: None) == table.partitions[0]


@pytest.mark.parametrize("broken", [b"\x00\xd8", b"\x00\xdcA\0", b"A\0\x00\xd8\x00\xd8" + b"B\0", b"\xff" * 72])
def test_a_label_of_broken_utf16_is_shown_with_marks_of_replacement(broken: bytes) -> None:
    table = read(gpt_disk([gpt_entry(1, LINUX, 64, 127, broken)]))
    assert json.dumps(table.to_json(), ensure_ascii=False).encode()
    assert table.render().encode()


def test_a_table_of_the_longest_labels_fits_in_an_error_that_crosses_to_the_test() -> None:
    entries = [gpt_entry(number, LINUX, 3000, 3001, "\u202e" * 36) for number in range(1, 1025)]
    table = read(gpt_disk(entries, count=1024, size=4 << 20))
    with pytest.raises(PartitionRequired) as caught:
        select(table, None, "disk.img", probe=lambda _: None)
    assert len(json.dumps(caught.value.to_wire())) < 64 << 10
