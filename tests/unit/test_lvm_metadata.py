"""LVM's metadata as its own tools write them, damaged, and hostile."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.volumes import lvm_text
from pytest_imagemount.engine.volumes.lvm_metadata import VolumeGroup, read_group, read_label

from .lvm_disks import (
    AREA,
    AREA_SIZE,
    PV0,
    Volume,
    crc,
    group_text,
    label,
    linear,
    metadata_area,
    physical_volume,
    volume,
)

ROOT = volume("root", linear("pv0", 0), linear("pv1", 5))
HIDDEN = volume("part", linear("pv0", 20), status='"READ", "WRITE"')


def test_a_group_is_read() -> None:
    disk = physical_volume(group_text(ROOT, HIDDEN))
    found = read_label(disk)
    assert found is not None
    assert (found.uuid, found.metadata) == (PV0, (Window(AREA, AREA_SIZE),))
    group = read_group(disk, found)
    assert group is not None
    assert (group.name, group.serial, group.extent) == ("vg", 3, 2048)
    assert {name: (one.start, one.extents) for name, one in group.physical.items()} == {
        "pv0": (2048, 59),
        "pv1": (2048, 59),
    }
    assert group.physical["pv0"].uuid == PV0
    root, part = group.logical["root"], group.logical["part"]
    assert (root.visible, root.writable, root.extents) == (True, True, 20)
    assert [segment.pairs("stripes") for segment in root.segments] == [[("pv0", 0)], [("pv1", 5)]]
    assert not part.visible


@pytest.mark.parametrize("at", [512, 4096, AREA_SIZE - 100, AREA_SIZE - 1])
def test_a_text_that_wraps_around_the_end_of_its_area_is_read(at: int) -> None:
    disk = physical_volume(group_text(ROOT), at=at)
    found = read_label(disk)
    assert found is not None
    assert read_group(disk, found) is not None


@pytest.mark.parametrize("sector", [0, 1, 2, 3])
def test_a_label_is_found_in_each_of_the_first_four_sectors(sector: int) -> None:
    found = read_label(Volume(label(sector=sector)))
    assert found is not None
    assert found.uuid == PV0


def test_what_is_no_whole_label_is_none() -> None:
    good = label()
    assert read_label(Volume(b"")) is None
    assert read_label(Volume(bytes(4096))) is None
    assert read_label(Volume(good[:600])) is None
    for place in range(512, 700, 7):
        damaged = good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]
        assert read_label(Volume(damaged)) is None


def test_a_volume_without_metadata_has_no_group() -> None:
    empty = physical_volume("")
    found = read_label(empty)
    assert found is not None
    assert read_group(empty, found) is None


def test_the_newest_of_two_areas_counts_and_a_damaged_one_does_not() -> None:
    old, new = group_text(ROOT), group_text(ROOT).replace("seqno = 3", "seqno = 4")
    second = AREA + AREA_SIZE
    areas = struct.pack("<8Q", 1 << 20, 0, 0, 0, AREA, AREA_SIZE, second, AREA_SIZE) + bytes(16)
    checked = struct.pack("<I8s32sQ", 32, b"LVM2 001", PV0.encode(), 1) + areas
    checked = checked.ljust(512 - 20, b"\0")
    head = bytes(512) + struct.pack("<8sQI", b"LABELONE", 1, crc(checked)) + checked
    parts = [head.ljust(AREA, b"\0"), metadata_area(old.encode()), metadata_area(new.encode(), start=second)]
    disk = Volume(b"".join(parts))
    found = read_label(disk)
    assert found is not None
    assert len(found.metadata) == 2
    group = read_group(disk, found)
    assert group is not None
    assert group.serial == 4
    parts[2] = parts[2].replace(b"seqno = 4", b"seqno = 5")
    group = read_group(Volume(b"".join(parts)), found)
    assert group is not None
    assert group.serial == 3
    parts[1] = bytes(AREA_SIZE)
    with pytest.raises(ValueError, match=r"header of a metadata area|checksum"):
        read_group(Volume(b"".join(parts)), found)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("", "describes 0 volume groups"),
        ("a { } b { }", "describes 2 volume groups"),
        ("vg {", "not closed"),
        ("}", "not opened"),
        ("vg { id = ", "ends too early"),
        ("vg { id = [ 1, ", "ends too early"),
        ("vg { = }", "name is missing"),
        ("vg { id }", "neither a section"),
        ('vg { id = "unclosed', "not understood"),
        ("a { " * 40 + "}" * 40, "too deeply"),
        ("vg { x = " + "[" * 40 + "]" * 40 + " }", "no value"),
        (group_text(ROOT).replace("extent_size = 2048", "extent_size = 0"), "extents of 0"),
        (group_text(ROOT).replace("extent_size = 2048", 'extent_size = "big"'), "extent_size is missing"),
        (group_text(ROOT).replace("segment_count = 2", "segment_count = 3"), "are missing"),
        (group_text(ROOT).replace("start_extent = 10", "start_extent = 11"), "gaps, or overlap"),
        (group_text(ROOT).replace("extent_count = 10", f"extent_count = {1 << 62}"), "gaps|are missing"),
        (group_text(ROOT).replace("extent_count = 10", "extent_count = -10"), "is missing, or no number"),
        (group_text(ROOT).replace("logical_volumes {", "logical_volumes = 3 other {"), "is no section"),
        (group_text(volume("empty")), "are missing"),
    ],
)
def test_damaged_text_is_an_error_that_says_what(broken: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        VolumeGroup.parse(broken)


def test_a_snapshot_has_the_name_of_its_store() -> None:
    snapshot = 'type = "snapshot"\nchunk_size = 8\norigin = "root"\ncow_store = "before"'
    hidden = volume("before", linear("pv0", 30), status='"READ", "WRITE"')
    group = VolumeGroup.parse(group_text(ROOT, hidden, volume("snapshot0", snapshot)))
    assert [name for name, one in group.logical.items() if one.visible] == ["root", "before"]


def test_values_are_read_as_lvm_writes_them() -> None:
    text = r'a = 1 b = -2 c = 1.5 d = "x \"y\" \\ # z" e = ["p", 3, []] # comment' + "\nf { g-h.i+j = 0 }"
    assert lvm_text.parse(text) == {
        "a": 1,
        "b": -2,
        "c": 1.5,
        "d": 'x "y" \\ # z',
        "e": ["p", 3, []],
        "f": {"g-h.i+j": 0},
    }


@given(st.text(alphabet='{}[]=,"\\#\n a0.-', max_size=200) | st.text(max_size=100))
def test_no_text_makes_the_parser_fail_otherwise(text: str) -> None:
    with contextlib.suppress(ValueError):
        VolumeGroup.parse(text)


@given(st.binary(max_size=700), st.integers(0, 2048))
def test_no_bytes_make_the_reader_fail_otherwise(noise: bytes, place: int) -> None:
    good = physical_volume(group_text(ROOT)).content
    disk = Volume(good[:place] + noise + good[place + len(noise) :])
    if found := read_label(disk):
        with contextlib.suppress(ValueError):
            read_group(disk, found)
