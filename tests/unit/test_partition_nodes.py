"""Which partition nodes are asked for, of a kernel that refuses partitions that overlap; no device is made."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.tables import partition_nodes
from pytest_imagemount.engine.tables.partition_table import Partition, PartitionTable
from pytest_imagemount.engine.undo import UndoStack
from pytest_imagemount.errors import DeviceFailed

MIB = 1 << 20


@dataclass
class Kernel:
    """The partitions of a device, as BLKPG makes them; ``present`` are those of a scan of the kernel's own."""

    present: set[int] = field(default_factory=set)
    made: dict[int, tuple[int, int]] = field(default_factory=dict)

    def control(self, fd: int, operation: int, number: int, start: int, length: int) -> None:
        if any(start < first + size and first < start + length for first, size in self.made.values()):
            raise OSError(errno.EBUSY, "Device or resource busy")
        self.made[number] = start, length


@dataclass
class FakeDevice:
    path: str = "/dev/loop7"
    fd: int = -1


def partition(number: int, start: int, size: int, *, container: bool = False) -> Partition:
    return Partition(number, Window(start, size), "0x83", None, None, container=container)


def nodes(kernel: Kernel, monkeypatch: pytest.MonkeyPatch, *partitions: Partition, sector: int = 512) -> list[int]:
    """The numbers of the partitions that have a node."""
    monkeypatch.setattr(partition_nodes, "_control", kernel.control)
    monkeypatch.setattr(partition_nodes, "_present", lambda path: kernel.present)
    table = PartitionTable("mbr", sector, None, partitions)
    found = partition_nodes.add_nodes(cast("Any", FakeDevice()), table, UndoStack())
    assert found == {number: Path(f"/dev/loop7p{number}") for number in found}
    return list(found)


@pytest.mark.parametrize(("sector", "length"), [(512, 1024), (4096, 4096)])
def test_an_extended_partition_has_a_node_of_its_beginning(
    sector: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel()
    parts = [partition(1, MIB, MIB), partition(2, 2 * MIB, 8 * MIB, container=True), partition(5, 3 * MIB, MIB)]
    assert nodes(kernel, monkeypatch, *parts, sector=sector) == [1, 2, 5]
    assert kernel.made == {1: (MIB, MIB), 2: (2 * MIB, length), 5: (3 * MIB, MIB)}


def test_a_container_has_no_node_where_another_starts_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [partition(1, 0, MIB), partition(3, 0, 8 * MIB, container=True)]
    assert nodes(Kernel(), monkeypatch, *parts) == [1]


def test_partitions_that_overlap_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceFailed, match="refused partition 2: it overlaps another one; leave out partitions=True"):
        nodes(Kernel(), monkeypatch, partition(1, 0, 2 * MIB), partition(2, MIB, 2 * MIB))


def test_what_the_kernel_has_found_itself_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(present={1, 2})
    assert nodes(kernel, monkeypatch, partition(1, 0, 2 * MIB), partition(2, MIB, 2 * MIB)) == [1, 2]
    assert kernel.made == {}
