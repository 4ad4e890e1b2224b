from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.superblock import AMBIVALENT, Superblock
from pytest_imagemount.engine.tables.auto import name_of
from pytest_imagemount.engine.tables.discoverable import root_type_name
from pytest_imagemount.engine.tables.partition_types import GPT_TYPES
from pytest_imagemount.engine.tables.read import Partition, PartitionTable
from pytest_imagemount.engine.tables.selection import select
from pytest_imagemount.engine.volumes.contents import LogicalVolume, LogicalVolumes, Volume
from pytest_imagemount.engine.volumes.lvm import VolumeName
from pytest_imagemount.errors import (
    MountFailed,
    PartitionAmbiguous,
    PartitionNotFound,
    PartitionRequired,
    RequestInvalid,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_imagemount.engine.tables.auto import Candidate

EXT4 = Superblock("ext4", "filesystem")
VFAT = Superblock("vfat", "filesystem")
SWAP = Superblock("swap", "other")
PHYSICAL = Superblock("LVM2_member", "raid")
TYPES = {name: guid for guid, name in GPT_TYPES.items()}
LINUX, ROOT = TYPES["linux-generic"], TYPES[root_type_name()]
NO_AUTO = 1 << 63


def partition(number: int, kind: str = LINUX, attributes: int = 0) -> Partition:
    return Partition(
        number, Window(number << 20, 1 << 20), kind, GPT_TYPES[kind], f"id-{number}", attributes=attributes
    )


def auto(
    found: dict[int, Superblock],
    *partitions: Partition,
    wanted: int | str = "auto",
    architecture: str | None = None,
    looks_like_root: Callable[[Candidate], bool] | None = None,
    volumes: LogicalVolumes | None = None,
) -> int | str | None:
    """What is chosen of the partitions that hold what ``found`` says, and of ``volumes``: what ``partition=`` takes."""
    chosen = select(
        PartitionTable("gpt", 512, "id", partitions) if partitions else None,
        wanted,
        "disk.img",
        probe=lambda window: found.get(window.offset >> 20),
        architecture=architecture,
        looks_like_root=looks_like_root,
        volumes=lambda: volumes,
    )
    return name_of(chosen) if chosen else None


def volumes(**held: Superblock | None) -> LogicalVolumes:
    """Logical volumes of group ``vg``, with what is in them; None is not looked into."""
    made = []
    for name, superblock in held.items():
        content = Volume(superblock) if superblock else None
        made.append(LogicalVolume(VolumeName("vg", name), 5 << 20, "linear" if content else "raid1", content))
    return LogicalVolumes(tuple(made))


def notes(error: PartitionAmbiguous) -> list[str]:
    """The remarks on the candidates below the table."""
    return [
        line.strip() for line in error.table.splitlines() if line.strip()[:2].rstrip(":").isdigit() and ": " in line
    ]


@pytest.mark.parametrize("wanted", ["auto", -1, "-1"])
def test_it_is_the_only_file_system(wanted: int | str) -> None:
    assert auto({1: SWAP, 7: EXT4}, partition(1), partition(2), partition(7), wanted=wanted) == 7


@pytest.mark.parametrize("wanted", ["auto", -1, "-1"])
def test_it_is_the_image_itself_where_there_is_no_table(wanted: int | str) -> None:
    assert select(None, wanted, "disk.img", probe=lambda _: EXT4) is None


def test_among_several_it_is_the_root_of_this_machine() -> None:
    assert auto({1: VFAT, 2: EXT4, 3: EXT4}, partition(1), partition(2, ROOT), partition(3)) == 2


@pytest.mark.parametrize(("architecture", "number"), [("x86-64", 2), ("amd64", 2), ("arm64", 3), ("aarch64", 3)])
def test_among_several_it_is_the_root_of_the_architecture_that_is_named(architecture: str, number: int) -> None:
    disk = partition(1), partition(2, TYPES["root-x86-64"]), partition(3, TYPES["root-arm64"])
    assert auto({1: VFAT, 2: EXT4, 3: EXT4}, *disk, architecture=architecture) == number


@pytest.mark.parametrize("wanted", [1, "auto", "TYPE=esp"])
def test_an_architecture_that_there_is_not_is_refused(wanted: int | str) -> None:
    with pytest.raises(RequestInvalid, match=r"architecture='pdp11'.*x86-64"):
        auto({}, partition(1), wanted=wanted, architecture="pdp11")


def test_a_root_that_is_not_to_be_mounted_by_itself_is_not_the_one() -> None:
    disk = partition(1, ROOT, NO_AUTO), partition(2, ROOT)
    assert auto({1: EXT4, 2: EXT4}, *disk) == 2
    with pytest.raises(PartitionAmbiguous) as caught:
        auto({1: EXT4, 2: EXT4}, disk[0], partition(2))
    assert notes(caught.value)[0].startswith(f"1: its type is {root_type_name()}, with the no-auto attribute")


def test_a_root_that_holds_no_file_system_is_not_the_one() -> None:
    assert auto({1: Superblock("crypto_LUKS", "crypto"), 2: EXT4}, partition(1, ROOT), partition(2)) == 2


def test_without_a_root_by_type_it_is_the_only_one_with_an_os_release() -> None:
    asked: list[int | str] = []

    def looks_like_root(one: Candidate) -> bool:
        asked.append(name_of(one))
        return name_of(one) == 3

    disk = partition(1), partition(2), partition(3), partition(4)
    assert auto({1: VFAT, 3: EXT4, 4: EXT4}, *disk, looks_like_root=looks_like_root) == 3
    assert asked == [1, 3, 4]


def test_of_two_roots_by_type_only_those_are_looked_into() -> None:
    asked: list[int | str] = []

    def looks_like_root(one: Candidate) -> bool:
        asked.append(name_of(one))
        return name_of(one) == 3

    disk = partition(1), partition(2, ROOT), partition(3, ROOT)
    assert auto(dict.fromkeys((1, 2, 3), EXT4), *disk, looks_like_root=looks_like_root) == 3
    assert asked == [2, 3]


@pytest.mark.parametrize("disk", [(partition(1), partition(2, ROOT)), (partition(1),)])
def test_nothing_is_looked_into_where_that_is_not_needed(disk: tuple[Partition, ...]) -> None:
    def looks_like_root(one: Candidate) -> bool:
        raise AssertionError(one)

    assert auto({1: EXT4, 2: EXT4}, *disk, looks_like_root=looks_like_root) == disk[-1].number


@pytest.mark.parametrize("kinds", [(LINUX, LINUX), (ROOT, ROOT)])
def test_among_equals_the_candidates_are_listed(kinds: tuple[str, str]) -> None:
    with pytest.raises(PartitionAmbiguous, match="2 partitions hold a file system") as caught:
        auto({1: EXT4, 2: SWAP, 3: EXT4}, partition(1, kinds[0]), partition(2), partition(3, kinds[1]))
    rows = [row.split()[0] for row in caught.value.table.splitlines()[2:4]]
    assert rows == ["1", "3"]
    assert len(notes(caught.value)) == 2
    assert all("not looked into" in note for note in notes(caught.value))


def test_each_candidate_is_told_why_it_is_not_the_one() -> None:
    def looks_like_root(one: Candidate) -> bool:
        if name_of(one) == 2:
            raise MountFailed(
                image="i", partition=2, fstype="x", errno=22, reason="Invalid argument", hint="see\nthe \x1b[2Jlog"
            )
        return False

    with pytest.raises(
        PartitionAmbiguous, match=f"0 of them are of type {root_type_name()}; say partition=N"
    ) as caught:
        auto({1: VFAT, 2: EXT4}, partition(1), partition(2), looks_like_root=looks_like_root)
    first, second = notes(caught.value)
    assert first == f"1: its type is not {root_type_name()}; it has no etc/os-release"
    assert second.startswith(
        f"2: its type is not {root_type_name()}; it could not be looked into: image 'i', partition 2"
    )
    assert "\x1b" not in str(caught.value)


def test_two_installed_systems_are_ambiguous() -> None:
    with pytest.raises(PartitionAmbiguous, match=r"2 of the 3 partitions .* have etc/os-release") as caught:
        auto(
            dict.fromkeys((1, 2, 3), EXT4),
            *map(partition, (1, 2, 3)),
            looks_like_root=lambda one: name_of(one) != 1,
        )
    assert [note.rpartition("; ")[2] for note in notes(caught.value)] == [
        "it has no etc/os-release",
        "it has etc/os-release",
        "it has etc/os-release",
    ]


def test_more_candidates_than_can_be_mounted_in_good_time_are_not_looked_into() -> None:
    def looks_like_root(one: Candidate) -> bool:
        raise AssertionError(one)

    with pytest.raises(PartitionAmbiguous, match="99 partitions"):
        auto(
            dict.fromkeys(range(1, 100), EXT4),
            *map(partition, range(1, 100)),
            looks_like_root=looks_like_root,
        )


def test_without_a_file_system_it_says_what_there_is() -> None:
    conflict = Superblock("signatures of several file systems at once", AMBIVALENT)
    with pytest.raises(PartitionNotFound, match=r"no partition holds a file system \(1 holds swap, 2 holds signatures"):
        auto({1: SWAP, 2: conflict}, partition(1), partition(2))


def test_what_is_encrypted_is_said_to_be_so_where_the_system_is_in_nothing_else() -> None:
    disk = [partition(number) for number in range(1, 5)]
    found = {1: VFAT, 2: EXT4, 3: Superblock("crypto_LUKS", "crypto"), 4: Superblock("crypto_LUKS", "crypto")}
    with pytest.raises(PartitionAmbiguous, match=r"say partition=N; encrypted \(LUKS\), and not opened: 3, 4\n"):
        auto(found, *disk, looks_like_root=lambda _: False)


def test_arrays_count_as_if_they_held_something_each_by_its_first_member() -> None:
    asked: list[int | str] = []

    def looks_like_root(one: Candidate) -> bool:
        asked.append(name_of(one))
        return name_of(one) == 3

    system, swap = (Superblock("linux_raid_member", "raid", uuid=name) for name in ("system", "swap"))
    disk = [partition(number) for number in range(1, 6)]
    found = {1: VFAT, 2: swap, 3: system, 4: swap, 5: system}
    assert auto(found, *disk, looks_like_root=looks_like_root) == 3
    assert asked == [1, 2, 3]
    assert auto({1: system, 2: system}, *disk[:2]) == 1


def test_the_only_file_system_may_be_in_a_logical_volume() -> None:
    disk = partition(1, TYPES["lvm"])
    assert auto({1: PHYSICAL}, disk, volumes=volumes(root=EXT4, swap=SWAP)) == "lv:vg/root"
    assert auto({}, volumes=volumes(root=EXT4, swap=SWAP)) == "lv:vg/root"


def test_of_boot_and_logical_volumes_it_is_the_one_with_an_os_release() -> None:
    asked: list[int | str] = []

    def looks_like_root(one: Candidate) -> bool:
        asked.append(name_of(one))
        return name_of(one) == "lv:vg/root"

    disk = partition(1), partition(2, TYPES["lvm"])
    found = volumes(home=EXT4, root=EXT4, swap=SWAP, mirrored=None)
    assert auto({1: EXT4, 2: PHYSICAL}, *disk, volumes=found, looks_like_root=looks_like_root) == "lv:vg/root"
    assert asked == [1, "lv:vg/home", "lv:vg/root", "lv:vg/mirrored"]


def test_a_root_by_type_goes_before_logical_volumes() -> None:
    disk = partition(1), partition(2, ROOT), partition(3, TYPES["lvm"])
    assert auto({1: VFAT, 2: EXT4, 3: PHYSICAL}, *disk, volumes=volumes(data=EXT4)) == 2


def test_logical_volumes_are_among_the_candidates_that_are_listed() -> None:
    expected = r"3 partitions and logical volumes .*; say partition=N or partition='lv:GROUP/VOLUME'\n"
    with pytest.raises(PartitionAmbiguous, match=expected) as caught:
        auto(
            {1: EXT4, 2: PHYSICAL},
            partition(1),
            partition(2, TYPES["lvm"]),
            volumes=volumes(root=EXT4, home=EXT4, swap=SWAP),
            looks_like_root=lambda _: False,
        )
    assert caught.value.table.splitlines()[-5:] == [
        "logical volumes",
        "  lv:vg/root  5 MiB  linear  ext4",
        "  lv:vg/home  5 MiB  linear  ext4",
        "  lv:vg/root: it has no etc/os-release",
        "  lv:vg/home: it has no etc/os-release",
    ]
    with pytest.raises(PartitionAmbiguous, match="2 logical volumes hold a file system, and none") as caught:
        auto({}, volumes=volumes(root=EXT4, home=EXT4), looks_like_root=lambda _: False)
    assert caught.value.table.startswith("logical volumes\n  lv:vg/root")


def test_logical_volumes_that_cannot_be_told_are_said_to_be_so() -> None:
    damaged = LogicalVolumes(error="its label is damaged")
    assert auto({1: EXT4, 2: PHYSICAL}, partition(1), partition(2), volumes=damaged) == 1
    with pytest.raises(
        PartitionNotFound, match=r"2 holds LVM2_member.*its logical volumes cannot be told: its label is"
    ):
        auto({2: PHYSICAL}, partition(1), partition(2), volumes=damaged)


@pytest.mark.parametrize("wanted", ["LABEL=home", "UUID=ab-12", "UUID=AB-12"])
def test_a_logical_volume_is_found_by_what_its_file_system_is_called(wanted: str) -> None:
    home = Superblock("ext4", "filesystem", "home", "ab-12")
    found = volumes(root=EXT4, home=home, mirrored=None)
    assert auto({1: EXT4, 2: PHYSICAL}, partition(1), partition(2), wanted=wanted, volumes=found) == "lv:vg/home"
    assert auto({}, wanted=wanted, volumes=found) == "lv:vg/home"
    with pytest.raises(PartitionAmbiguous, match="2 partitions and logical volumes match") as caught:
        auto({1: home, 2: PHYSICAL}, partition(1), partition(2), wanted=wanted, volumes=found)
    assert caught.value.table.splitlines()[-2:] == [
        "  lv:vg/home  5 MiB  linear  ext4",
        "  lv:vg/home: ext4, LABEL=home, UUID=ab-12",
    ]


def test_what_no_logical_volume_is_called_is_an_error_that_lists_them() -> None:
    found = volumes(root=Superblock("ext4", "filesystem", "root"))
    with pytest.raises(PartitionNotFound, match="no partition and no logical volume matches") as caught:
        auto({1: PHYSICAL}, partition(1), wanted="LABEL=home", volumes=found)
    assert caught.value.table.splitlines()[-1] == "  lv:vg/root: ext4, LABEL=root"
    with pytest.raises(PartitionNotFound, match="the image has no partition table"):
        auto({}, wanted="LABEL=home", volumes=None)


@pytest.mark.parametrize("wanted", [1, "PARTLABEL=root", "TYPE=root", None])
def test_what_only_partitions_have_asks_for_no_logical_volume(wanted: int | str | None) -> None:
    def never() -> LogicalVolumes:
        raise AssertionError

    disk = PartitionTable("gpt", 512, "id", (replace(partition(1, ROOT), label="root"),))
    if wanted is None:
        with pytest.raises(PartitionRequired):
            select(disk, wanted, "disk.img", probe=lambda _: EXT4, volumes=never)
    else:
        assert select(disk, wanted, "disk.img", probe=lambda _: EXT4, volumes=never) == disk.partitions[0]
