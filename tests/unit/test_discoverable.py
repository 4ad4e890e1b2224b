from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.tables.discoverable import (
    ROLES,
    architecture_name,
    architecture_of,
    discoverable_roles,
    root_type_name,
    var_partition_uuid,
)
from pytest_imagemount.engine.tables.discoverable_types import ARCHITECTURES, DISCOVERABLE_TYPES
from pytest_imagemount.engine.tables.os_release import has_os_release
from pytest_imagemount.engine.tables.partition_types import GPT_TYPES
from pytest_imagemount.engine.tables.read import Partition, PartitionTable
from pytest_imagemount.errors import RequestInvalid

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_imagemount.engine.tables.partition_table import Kind

TYPES = {name: guid for guid, name in GPT_TYPES.items()}
NO_AUTO = 1 << 63


def table(*kinds: tuple[str, int] | str, kind: Kind = "gpt") -> PartitionTable:
    """A table of partitions of these types, by name, and attributes."""
    entries = [one if isinstance(one, tuple) else (one, 0) for one in kinds]
    partitions = [
        Partition(number, Window(number << 20, 1 << 20), TYPES[name], name, None, attributes=attributes)
        for number, (name, attributes) in enumerate(entries, start=1)
    ]
    return PartitionTable(kind, 512, None, tuple(partitions))


def roles(disk: PartitionTable | None, architecture: str | None = None) -> dict[str, int]:
    return {role: partition.number for role, partition in discoverable_roles(disk, architecture).items()}


def test_every_role_is_found_by_its_type() -> None:
    disk = table("swap", "home", "esp", "xbootldr", "root-arm64", "usr-arm64", "srv", "var", "tmp", "linux-generic")
    found = roles(disk, "arm64")
    assert found == {
        "root": 5, "usr": 6, "home": 2, "srv": 7, "var": 8, "tmp": 9, "esp": 3, "xbootldr": 4, "swap": 1,
    }  # fmt: skip
    assert tuple(found) == ROLES


def test_the_first_of_each_type_counts() -> None:
    assert roles(table("home", "home", "root-x86", "root-x86"), "i686") == {"root": 3, "home": 1}


def test_those_of_other_architectures_do_not_count() -> None:
    assert roles(table("root-x86", "usr-x86", "root-x86-64-verity", "root-s390"), "x86-64") == {}


def test_without_an_architecture_it_is_this_machines() -> None:
    assert roles(table("root-s390", root_type_name())) == {"root": 2}


def test_partitions_with_the_no_auto_attribute_do_not_count_but_the_esp() -> None:
    disk = table(("esp", NO_AUTO), ("home", NO_AUTO), "home", ("swap", NO_AUTO), ("root-x86-64", NO_AUTO))
    assert roles(disk, "x86-64") == {"home": 3, "esp": 1}


def test_flags_are_those_of_the_partition() -> None:
    found = discoverable_roles(table(("home", 1 << 60), ("srv", 1 << 59)))
    assert (found["home"].read_only, found["home"].growfs) == (True, False)
    assert (found["srv"].read_only, found["srv"].growfs) == (False, True)


def test_only_a_gpt_has_roles() -> None:
    assert roles(None) == {}
    assert roles(table("home", kind="mbr")) == {}


@pytest.mark.parametrize(
    ("given", "name"),
    [("x86_64", "x86-64"), ("amd64", "x86-64"), ("AArch64", "arm64"), ("ppc64el", "ppc64-le"), ("i386", "x86")],
)
def test_an_architecture_has_many_names(given: str, name: str) -> None:
    assert architecture_name(given) == name


def test_every_architecture_of_the_specification_is_known_by_its_name() -> None:
    assert [architecture_name(name) for name in ARCHITECTURES] == list(ARCHITECTURES)
    assert len(ARCHITECTURES) == 24


@pytest.mark.parametrize("given", ["", "vax", "root", "x86-64 "])
def test_another_name_is_refused(given: str) -> None:
    with pytest.raises(RequestInvalid, match="loongarch64"):
        architecture_name(given)


def test_a_machine_that_the_specification_does_not_know_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "VAX")
    assert root_type_name() == "root-vax"
    assert roles(table("home")) == {"home": 1}


def test_a_type_tells_its_architecture() -> None:
    disk = table("root-m68k", "usr-sparc64-verity-sig", "home")
    assert [architecture_of(one) for one in disk.partitions] == ["m68k", "sparc64", None]


def test_there_are_six_types_for_each_architecture_and_nine_others() -> None:
    assert len(DISCOVERABLE_TYPES) == 24 * 6 + 9
    assert len(set(DISCOVERABLE_TYPES.values())) == len(DISCOVERABLE_TYPES)


def test_the_uuid_of_var_follows_from_the_machine_id() -> None:
    """It is what ``systemd-id128 machine-id --app-specific=`` with the type of /var says on that machine."""
    assert var_partition_uuid("0123456789abcdef0123456789abcdef\n") == "c0c46eff-e386-4746-a2bd-0962cd326ea2"


@pytest.mark.parametrize("machine_id", ["", "uninitialized", "x" * 32])
def test_what_is_no_machine_id_is_a_value_error(machine_id: str) -> None:
    with pytest.raises(ValueError):
        var_partition_uuid(machine_id)


def holds(root: Path) -> bool:
    fd = os.open(root, os.O_PATH)
    try:
        return has_os_release(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("place", ["etc/os-release", "usr/lib/os-release"])
def test_an_installed_system_has_an_os_release(tmp_path: Path, place: str) -> None:
    assert not holds(tmp_path)
    (tmp_path / place).parent.mkdir(parents=True)
    assert not holds(tmp_path)
    (tmp_path / place).write_text("ID=x\n")
    assert holds(tmp_path)


def test_an_os_release_that_leads_to_another_partition_counts(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").symlink_to("../usr/lib/os-release")
    assert holds(tmp_path)


def test_links_on_the_way_do_not_lead_out_of_the_tree(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "os-release").write_text("ID=x\n")
    root = tmp_path / "root"
    root.mkdir()
    (root / "etc").symlink_to(outside)
    assert not holds(root)
