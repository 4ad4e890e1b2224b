from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.superblock import Superblock
from pytest_imagemount.engine.tables.auto import name_of
from pytest_imagemount.engine.tables.discoverable import root_type_name
from pytest_imagemount.engine.tables.partition_types import GPT_TYPES, MBR_TYPES
from pytest_imagemount.engine.tables.read import Partition, PartitionTable, read_table
from pytest_imagemount.engine.tables.selection import select
from pytest_imagemount.errors import (
    DeviceFailed,
    ImageBusy,
    PartitionAmbiguous,
    PartitionNotFound,
    PartitionRequired,
    RequestInvalid,
)

if TYPE_CHECKING:
    from collections.abc import Callable

EXT4 = Superblock("ext4", "filesystem", "data", "2567a004-aacf-467e-a0ce-58dfa02a0aae")
VFAT = Superblock("vfat", "filesystem", "EFI", "1A2B-3C4D")
SWAP = Superblock("swap", "other")
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
ROOT = next(guid for guid, name in GPT_TYPES.items() if name == root_type_name())


def partition(number: int, *, kind: str = LINUX, label: str | None = None, container: bool = False) -> Partition:
    window = Window(number << 20, 1 << 20)
    uuid = f"0000000a-0000-0000-0000-{number:012x}"
    return Partition(number, window, kind, GPT_TYPES.get(kind), uuid, label, container=container)


def table(*partitions: Partition, kind: str = "gpt") -> PartitionTable:
    return PartitionTable("mbr" if kind == "mbr" else "gpt", 512, "id", partitions)


def probe(found: dict[int, Superblock]) -> Callable[[Window], Superblock | None]:
    """A prober that knows what is in the partition of each number."""
    return lambda window: found.get(window.offset >> 20)


def choose(
    disk: PartitionTable | None, wanted: int | str | None, found: dict[int, Superblock] | None = None
) -> int | str | None:
    chosen = select(disk, wanted, "disk.img", probe=probe(found or {}))
    return name_of(chosen) if chosen else None


THREE = table(partition(1, label="boot"), partition(2, label="root"), partition(7, label="ROOT"))


def test_none_is_the_whole_image_where_there_is_no_table() -> None:
    assert choose(None, None) is None


def test_none_with_a_table_names_the_choices_and_shows_the_table() -> None:
    with pytest.raises(PartitionRequired, match=r"say partition=N, one of 1, 2, 7") as caught:
        choose(THREE, None)
    assert "disk.img" in str(caught.value)
    assert "linux-generic" in caught.value.table


def test_none_with_a_table_without_partitions_says_so() -> None:
    with pytest.raises(PartitionRequired, match="without a usable partition"):
        choose(table(), None)


@pytest.mark.parametrize(("wanted", "number"), [(1, 1), (7, 7), ("2", 2), ("07", 7)])
def test_a_number_is_the_tables(wanted: int | str, number: int) -> None:
    assert choose(THREE, wanted) == number


@pytest.mark.parametrize("wanted", [0, 3, 99, -2, "99", "0"])
def test_a_number_that_is_not_there_shows_the_table(wanted: int | str) -> None:
    with pytest.raises(PartitionNotFound, match=r"no such partition.*one of 1, 2, 7") as caught:
        choose(THREE, wanted)
    assert caught.value.table == THREE.render()
    assert not isinstance(caught.value, PartitionRequired)


@pytest.mark.parametrize("wanted", [1, 0, "LABEL=x", "PARTUUID=x", "TYPE=esp"])
def test_a_choice_on_an_image_without_a_table_says_that_it_has_none(wanted: int | str) -> None:
    with pytest.raises(PartitionNotFound, match="partition=None mounts the image itself"):
        choose(None, wanted)


@pytest.mark.parametrize("wanted", ["", "foo", "root=1", "LABEL=", "LABEL", "label=x", True, 1.5, "1.0", "1\n", b"1"])
def test_anything_else_is_answered_with_the_forms_there_are(wanted: object) -> None:
    with pytest.raises(RequestInvalid, match=r"'auto' \(or -1\), or one of LABEL=, UUID=, PARTLABEL="):
        choose(THREE, wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ("PARTLABEL=root", 2),
        ("PARTLABEL=ROOT", 7),
        ("PARTUUID=0000000A-0000-0000-0000-000000000002", 2),
        ("LABEL=data", 2),
        ("UUID=2567A004-aacf-467e-a0ce-58dfa02a0aae", 2),
        ("UUID=1a2b-3c4d", 1),
    ],
)
def test_a_partition_is_found_by_its_identity(wanted: str, number: int) -> None:
    assert choose(THREE, wanted, {1: VFAT, 2: EXT4}) == number


@pytest.mark.parametrize(
    "wanted", ["PARTLABEL=Root", "LABEL=DATA", "UUID=0", "PARTUUID=0", "TYPE=swap", "LABEL=\x1b[2J"]
)
def test_an_identity_that_is_not_there_shows_the_table(wanted: str) -> None:
    with pytest.raises(PartitionNotFound, match="no partition matches") as caught:
        choose(THREE, wanted, {1: VFAT, 2: EXT4})
    assert "\x1b" not in str(caught.value)
    assert caught.value.table is not None
    assert caught.value.table.startswith(THREE.render())
    assert ("LABEL=" in caught.value.table) == wanted.startswith(("LABEL", "UUID"))


def test_a_label_that_is_not_there_shows_those_that_are() -> None:
    with pytest.raises(PartitionNotFound) as caught:
        choose(THREE, "LABEL=DATA", {1: VFAT, 2: EXT4})
    assert caught.value.table is not None
    assert caught.value.table.splitlines()[-2:] == [
        "  1: vfat, LABEL=EFI, UUID=1A2B-3C4D",
        "  2: ext4, LABEL=data, UUID=2567a004-aacf-467e-a0ce-58dfa02a0aae",
    ]


def test_an_identity_that_two_have_lists_the_two() -> None:
    disk = table(partition(1), partition(2, label="x"), partition(3, label="x"))
    with pytest.raises(PartitionAmbiguous, match="2 partitions match") as caught:
        choose(disk, "PARTLABEL=x")
    rows = caught.value.table.splitlines()[2:]
    assert [row.split()[0] for row in rows] == ["2", "3"]


@pytest.mark.parametrize("wanted", [f"TYPE={LINUX.upper()}", "TYPE=linux-generic", "TYPE=Linux-Generic"])
def test_a_gpt_type_is_a_guid_or_a_name(wanted: str) -> None:
    assert choose(table(partition(1, kind=ROOT), partition(2)), wanted) == 2


@pytest.mark.parametrize("wanted", ["TYPE=0x0c", "TYPE=0xC", "TYPE=c", "TYPE=0C", "TYPE=fat32-lba"])
def test_an_mbr_type_is_a_code_or_a_name(wanted: str) -> None:
    one = Partition(1, Window(1 << 20, 1), "0x83", MBR_TYPES[0x83], "a-01")
    two = Partition(2, Window(2 << 20, 1), "0x0c", MBR_TYPES[0x0C], "a-02")
    assert choose(table(one, two, kind="mbr"), wanted) == 2


@pytest.mark.parametrize("wanted", ["TYPE=root", "TYPE=Root", f"TYPE={root_type_name()}"])
def test_the_type_root_is_that_of_the_architecture(wanted: str) -> None:
    assert choose(table(partition(1), partition(2, kind=ROOT)), wanted) == 2
    arm = next(guid for guid, name in GPT_TYPES.items() if name == "usr-arm64-verity")
    disk = table(partition(1, kind=ROOT), partition(3, kind=arm))
    chosen = select(disk, "TYPE=usr-verity", "disk.img", probe=probe({}), architecture="aarch64")
    assert chosen is not None
    assert name_of(chosen) == 3


def test_an_apple_type_is_the_maps_word() -> None:
    one = Partition(2, Window(1 << 20, 1), "Apple_HFS", None, None)
    assert choose(PartitionTable("apple", 512, None, (one,)), "TYPE=apple_hfs") == 2


ISO = Superblock("iso9660", "filesystem", "LIVE")
WHOLE = Window(0, 1 << 30)


def choose_on_iso(disk: PartitionTable, wanted: int | str | None, whole: Superblock | None) -> int | str | None:
    """The choice on a disk that as a whole holds ``whole``, and ext4 in partition 2, vfat in 3."""
    inside = probe({2: EXT4, 3: VFAT})
    look = lambda window: whole if window == WHOLE else inside(window)  # noqa: E731
    chosen = select(replace(disk, disk_size=WHOLE.size), wanted, "disk.img", probe=look)
    return name_of(chosen) if chosen else None


def test_none_on_an_iso_with_a_partition_table_is_the_iso() -> None:
    assert choose_on_iso(THREE, None, ISO) is None
    assert choose_on_iso(THREE, 2, ISO) == 2
    for other in (None, EXT4):
        with pytest.raises(PartitionRequired):
            choose_on_iso(THREE, None, other)


def test_auto_on_an_iso_is_the_iso_where_a_partition_covers_it() -> None:
    cover = Partition(1, Window(0, 1 << 29), "0x17", None, None)
    assert choose_on_iso(table(cover, partition(3), kind="mbr"), "auto", ISO) is None
    # Left over from the days before the disk was partitioned:
    assert choose_on_iso(table(partition(2), kind="mbr"), "auto", ISO) == 2


def test_an_extended_partition_is_never_probed_or_offered() -> None:
    disk = table(partition(4, container=True), partition(5))
    assert choose(disk, "auto", {4: EXT4, 5: EXT4}) == 5
    assert choose(disk, "LABEL=data", {4: EXT4, 5: EXT4}) == 5
    with pytest.raises(PartitionRequired) as caught:
        choose(disk, None)
    assert caught.value.reason.endswith("one of 5")


def test_a_label_cannot_write_to_the_terminal() -> None:
    disk = table(partition(1, label="\x1b]0;evil\x07\u202egnp.exe\ud800"))
    assert all(char.isprintable() or char == "\n" for char in disk.render())
    assert r"\x1b]0;evil\x07\u202egnp.exe\ud800" in disk.render()


def test_columns_are_aligned_whatever_is_in_them() -> None:
    disk = table(partition(1, label="a"), partition(12, label="a long label"), partition(128))
    lines = disk.render().splitlines()[1:]
    assert len({line.index(line.split()[-1]) for line in lines}) == 1
    assert lines[1].split()[:5] == ["1", "1", "MiB", "1", "MiB"]


def test_warnings_stand_below_the_table() -> None:
    assert (
        PartitionTable("gpt", 512, None, (), ("it is odd",)).render().endswith("  no partitions\n  warning: it is odd")
    )


def test_json_has_every_fact() -> None:
    value = json.loads(json.dumps(table(replace(partition(2, label="root"), attributes=1 << 60)).to_json()))
    assert value["kind"] == "gpt"
    assert value["partitions"] == [
        {
            "number": 2,
            "offset": 2 << 20,
            "size": 1 << 20,
            "type": LINUX,
            "type_name": "linux-generic",
            "uuid": "0000000a-0000-0000-0000-000000000002",
            "label": "root",
            "logical": False,
            "container": False,
            "attributes": ["read-only"],
        }
    ]


def test_type_names_are_unique_and_guids_well_formed() -> None:
    assert len(set(GPT_TYPES.values())) == len(GPT_TYPES)
    assert all(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", guid) for guid in GPT_TYPES)


class _Broken:
    """A disk whose reads fail."""

    size = 1 << 20

    def __init__(self, error: OSError) -> None:
        self.error = error

    def pread(self, size: int, offset: int) -> bytes:
        raise self.error


def test_a_read_error_names_the_image() -> None:
    with pytest.raises(DeviceFailed, match=r"disk\.img.*Input/output error") as caught:
        read_table(_Broken(OSError(5, "Input/output error")), "disk.img")
    assert caught.value.errno == 5


def test_an_error_of_ours_from_the_reader_passes_through() -> None:
    with pytest.raises(ImageBusy):
        read_table(_Broken(ImageBusy(image="disk.img", reason="r", hint="h")), "disk.img")
