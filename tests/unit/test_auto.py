from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.superblock import AMBIVALENT, Superblock
from pytest_imagemount.engine.tables.discoverable import root_type_name
from pytest_imagemount.engine.tables.partition_types import GPT_TYPES
from pytest_imagemount.engine.tables.read import Partition, PartitionTable
from pytest_imagemount.engine.tables.selection import select
from pytest_imagemount.errors import MountFailed, PartitionAmbiguous, PartitionNotFound, RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

EXT4 = Superblock("ext4", "filesystem")
VFAT = Superblock("vfat", "filesystem")
SWAP = Superblock("swap", "other")
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
    looks_like_root: Callable[[Partition], bool] | None = None,
) -> int | None:
    """The number of the partition that is chosen of those that hold what ``found`` says."""
    chosen = select(
        PartitionTable("gpt", 512, "id", partitions),
        wanted,
        "disk.img",
        probe=lambda window: found.get(window.offset >> 20),
        architecture=architecture,
        looks_like_root=looks_like_root,
    )
    return chosen.number if chosen else None


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
    asked: list[int] = []

    def looks_like_root(one: Partition) -> bool:
        asked.append(one.number)
        return one.number == 3

    disk = partition(1), partition(2), partition(3), partition(4)
    assert auto({1: VFAT, 3: EXT4, 4: EXT4}, *disk, looks_like_root=looks_like_root) == 3
    assert asked == [1, 3, 4]


def test_of_two_roots_by_type_only_those_are_looked_into() -> None:
    asked: list[int] = []

    def looks_like_root(one: Partition) -> bool:
        asked.append(one.number)
        return one.number == 3

    disk = partition(1), partition(2, ROOT), partition(3, ROOT)
    assert auto(dict.fromkeys((1, 2, 3), EXT4), *disk, looks_like_root=looks_like_root) == 3
    assert asked == [2, 3]


@pytest.mark.parametrize("disk", [(partition(1), partition(2, ROOT)), (partition(1),)])
def test_nothing_is_looked_into_where_that_is_not_needed(disk: tuple[Partition, ...]) -> None:
    def looks_like_root(one: Partition) -> bool:
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
    def looks_like_root(one: Partition) -> bool:
        if one.number == 2:
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
            looks_like_root=lambda one: one.number != 1,
        )
    assert [note.rpartition("; ")[2] for note in notes(caught.value)] == [
        "it has no etc/os-release",
        "it has etc/os-release",
        "it has etc/os-release",
    ]


def test_more_candidates_than_can_be_mounted_in_good_time_are_not_looked_into() -> None:
    def looks_like_root(one: Partition) -> bool:
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
