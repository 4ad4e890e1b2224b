"""From LVM's metadata to the device mapper's tables; no device is made."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_imagemount.engine.volumes.lvm_metadata import VolumeGroup
from pytest_imagemount.engine.volumes.lvm_tables import Tables
from pytest_imagemount.errors import VolumeInvalid

from .lvm_disks import PV0, PV1, group_text, linear, volume

if TYPE_CHECKING:
    from pytest_imagemount.engine.volumes.dm import Target

MIB = 1 << 20
MIRROR = 'type = "raid1"\ndevice_count = 2\nraids = ["m_rmeta_0", "m_rimage_0", "m_rmeta_1", "m_rimage_1"]'
SIDES = [
    volume("m", MIRROR),
    volume("m_rmeta_0", "start_extent = 0\nextent_count = 1\n" + linear("pv0", 40)),
    volume("m_rimage_0", linear("pv0", 41)),
    volume("m_rmeta_1", "start_extent = 0\nextent_count = 1\n" + linear("pv1", 40)),
    volume("m_rimage_1", linear("pv1", 41)),
]


@dataclass
class FakeDevice:
    number: str
    fd: int = -1


@dataclass
class FakeBlock:
    """A physical volume of 60 MiB, whose device is a file here."""

    place: str
    content: dict[int, bytes] = field(default_factory=dict)
    size: int = 60 * MIB
    skips: list[int] = field(default_factory=list)

    def pread(self, size: int, offset: int) -> bytes:
        return self.content.get(offset, bytes(size))[:size]

    def device(self, ground: FakeGround, skip: int) -> tuple[FakeDevice, int]:
        self.skips.append(skip)
        return FakeDevice("", ground.fds[self.place]), 0


@dataclass
class FakeGround:
    """Notes the tables instead of making mappings."""

    mode: str
    fds: dict[str, int]
    image: str = "disk.raw"
    made: list[list[Target]] = field(default_factory=list)

    @property
    def readonly(self) -> bool:
        return self.mode == "ro"

    def map(self, targets: list[Target]) -> FakeDevice:
        self.made.append(targets)
        return FakeDevice(f"254:{len(self.made) - 1}")

    def below(self, device: FakeDevice) -> FakeDevice:
        return device


def tables(
    wanted: str, *volumes: str, mode: str = "ro", blocks: dict[str, FakeBlock] | None = None
) -> list[list[tuple[Any, ...]]]:
    """Every table that is made for volume ``wanted``; P0 and P1 stand for the physical volumes' devices."""
    given = {PV0: FakeBlock("p0"), PV1: FakeBlock("p1")} if blocks is None else blocks
    # Two character devices, whose numbers stand in the tables.
    fds = {"p0": os.open("/dev/null", os.O_RDONLY), "p1": os.open("/dev/zero", os.O_RDONLY)}
    ground = FakeGround(mode, fds)
    try:
        group = VolumeGroup.parse(group_text(*volumes))
        Tables(cast("Any", ground), group, cast("Any", given)).open(group.logical[wanted])
    finally:
        for fd in fds.values():
            os.close(fd)
    return [
        [(one.start, one.length, one.kind, one.parameters.replace("1:3", "P0").replace("1:5", "P1")) for one in table]
        for table in ground.made
    ]


def test_a_volume_of_two_pieces() -> None:
    root = volume("root", linear("pv0", 0), linear("pv1", 5))
    pieces = [(0, 20480, "linear", "P0 0"), (20480, 20480, "linear", "P1 10240")]
    assert tables("root", root) == [pieces]


def test_the_devices_begin_behind_the_label() -> None:
    blocks = {PV0: FakeBlock("p0"), PV1: FakeBlock("p1")}
    tables("root", volume("root", linear("pv0", 0), linear("pv0", 30)), blocks=blocks)
    assert blocks[PV0].skips == [MIB], "one device for both pieces"
    assert blocks[PV1].skips == []


def test_stripes() -> None:
    striped = volume("s", 'type = "striped"\nstripe_count = 2\nstripe_size = 128\nstripes = ["pv0", 1, "pv1", 2]')
    assert tables("s", striped) == [[(0, 20480, "striped", "2 128 P0 2048 P1 4096")]]


def test_raid0_is_stripes_over_its_images() -> None:
    segment = 'type = "raid0"\ndevice_count = 2\nstripe_size = 128\nraid0_lvs = ["r_rimage_0", "r_rimage_1"]'
    images = [volume(f"r_rimage_{n}", "start_extent = 0\nextent_count = 5\n" + linear(f"pv{n}", 3)) for n in (0, 1)]
    made = tables("r", volume("r", segment), *images)
    assert made[-1] == [(0, 20480, "striped", "2 128 254:0 0 254:1 0")]


def side(events: int, *, failed: int = 0, recovered: int = (1 << 64) - 1) -> dict[int, bytes]:
    """The superblock of one side of a mirror."""
    sector = 2048 + 40 * 2048
    return {sector * 512: struct.pack("<4I3Q", 0x64526D44, 0, 2, 0, events, failed, recovered)}


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        (side(7), side(7), "P0"),
        (side(6), side(7), "P1"),
        (side(7, recovered=1000), side(7), "P1"),
        (side(7, failed=1), side(7, failed=1), "P1"),
        ({}, side(7), "P1"),
        (None, side(7), "P1"),
        (side(7), None, "P0"),
    ],
)
def test_the_side_of_a_mirror_that_is_current_is_read(
    first: dict[int, bytes] | None, second: dict[int, bytes] | None, chosen: str
) -> None:
    given = [(PV0, "p0", first), (PV1, "p1", second)]
    blocks = {uuid: FakeBlock(place, content) for uuid, place, content in given if content is not None}
    made = tables("m", *SIDES, blocks=blocks)
    assert made == [[(0, 20480, "linear", f"{chosen} 83968")], [(0, 20480, "linear", "254:0 0")]]


def test_a_mirror_without_a_whole_side_is_an_error() -> None:
    stale = {PV0: FakeBlock("p0", side(7, recovered=5)), PV1: FakeBlock("p1", side(7, failed=2))}
    with pytest.raises(VolumeInvalid, match="no side of the mirror is whole"):
        tables("m", *SIDES, blocks=stale)
    with pytest.raises(VolumeInvalid, match="needs the physical volume pv0"):
        tables("m", *SIDES, blocks={})


def test_a_snapshot_lies_on_its_origin_and_its_changes() -> None:
    snapshot = 'type = "snapshot"\nchunk_size = 8\norigin = "root"\ncow_store = "before"'
    volumes = [
        volume("root", linear("pv0", 0)),
        volume("before", linear("pv1", 0), status='"READ", "WRITE"'),
        volume("snapshot0", snapshot),
    ]
    origin, changes = [(0, 20480, "linear", "P0 0")], [(0, 20480, "linear", "P1 0")]
    assert tables("before", *volumes) == [origin, changes, [(0, 20480, "snapshot", "254:0 254:1 P 8")]]
    with pytest.raises(VolumeInvalid, match="has snapshots"):
        tables("root", *volumes, mode="rw")


def test_thin_volumes_need_to_write() -> None:
    volumes = [
        volume("t", 'type = "thin"\nthin_pool = "p"\ntransaction_id = 0\ndevice_id = 3'),
        volume("p", 'type = "thin-pool"\nmetadata = "p_tmeta"\npool = "p_tdata"\nchunk_size = 128'),
        volume("p_tmeta", linear("pv0", 0)),
        volume("p_tdata", linear("pv1", 0)),
    ]
    with pytest.raises(VolumeInvalid, match="mode='overlay'"):
        tables("t", *volumes)
    made = tables("t", *volumes, mode="overlay")
    assert made[2:] == [
        [(0, 20480, "thin-pool", "254:0 254:1 128 0 1 ignore_discard")],
        [(0, 20480, "thin", "254:2 3")],
    ]


@pytest.mark.parametrize(
    ("segment", "reason"),
    [
        (linear("pv0", 50), "behind the end of pv0"),
        (linear("pv7", 0), "no volume pv7"),
        (linear("other", 1), "behind the end of other"),
        (linear("self", 0), "is made of itself"),
        ('type = "striped"\nstripe_count = 0\nstripes = []', "in 0 stripes"),
        ('type = "striped"\nstripes = ["pv0"]', "no list of pairs"),
        ('type = "striped"\nstripes = [0, "pv0"]', "no name"),
        ('type = "striped"\nstripe_count = 2\nstripes = ["pv0", 0, "pv1", 0]', "stripe_size is missing"),
        ('type = "cache"\norigin = "other"', "type is cache"),
        ('type = "raid5_ls"', "type is raid5_ls"),
        ('type = "thin"\nthin_pool = "self"\ndevice_id = 1', "is made of itself"),
        ('type = "thin"\nthin_pool = "p"\nexternal_origin = "o"', "external origin"),
        ('type = "raid1"\nraids = ["a", "b"]', "no volume a"),
    ],
)
def test_what_cannot_be_mapped_is_named(segment: str, reason: str) -> None:
    with pytest.raises(VolumeInvalid, match=rf"volume vg/self: .*{reason}"):
        tables("self", volume("self", segment), volume("other", linear("pv0", 0)))


def test_a_volume_of_no_end_of_others_is_refused() -> None:
    parts = [volume(f"part{number}", linear("pv0", 0)) for number in range(257)]
    whole = volume("all", *(linear(f"part{number}", 0) for number in range(257)))
    with pytest.raises(VolumeInvalid, match="more than 256 volumes"):
        tables("all", whole, *parts)


def test_a_disk_that_is_shorter_than_its_group_says_is_an_error() -> None:
    with pytest.raises(VolumeInvalid, match="pv0 is longer than p0"):
        tables("root", volume("root", linear("pv0", 0)), blocks={PV0: FakeBlock("p0", size=30 * MIB)})


def test_mode_rw_refuses_what_it_would_spoil() -> None:
    with pytest.raises(VolumeInvalid, match="is a mirror"):
        tables("m", *SIDES, mode="rw")
    with pytest.raises(VolumeInvalid, match="read-only in its group"):
        tables("root", volume("root", linear("pv0", 0), status='"READ", "VISIBLE"'), mode="rw")
