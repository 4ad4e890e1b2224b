"""``disk`` and ``partitions``: the image file, the disk in it, its partition table. Nothing is mounted for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .files import size_problems
from .problem import Problem, value_problems
from .values import show_list, show_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..engine.tables.read import Partition
    from ..inspection import Inspection
    from ..shared_images import SharedImage
    from .plan import Check


def check_disk(check: Check, shared: SharedImage) -> Iterator[Problem]:
    """The problems of section ``disk``."""
    disk = shared.inspection
    table = disk.table
    found = {
        "format": disk.format,
        "table": table.kind if table else "none",
        "partitions": str(len(partitions_of(disk))),
        "uuid": (table.uuid if table else None) or "none",
    }
    yield from value_problems(check, found, ignore_case=True)
    for key in ("size", "min-size", "max-size"):
        yield from size_problems(check, key, disk.virtual_size)
    yield from size_problems(check, "max-file-size", disk.file_size)


def check_partitions(check: Check, shared: SharedImage) -> Iterator[Problem]:
    """The problems of one entry of ``partitions``."""
    disk = shared.inspection
    partition = _find(disk, check.subject)
    if check.expect.get("state") == "absent":
        if partition is not None:
            yield Problem("state", "absent", _summary(disk, partition))
        return
    if partition is None:
        there = show_list(_short(each) for each in partitions_of(disk))
        yield Problem("state", "exists", f"no such partition; there are: {there}" if disk.table else "no partitions")
        return
    yield from _partition_problems(check, disk, partition)


def partitions_of(disk: Inspection) -> list[Partition]:
    """The partitions that can hold something: without the extended one of an MBR."""
    return [each for each in disk.table.partitions if not each.container] if disk.table else []


def _find(disk: Inspection, subject: str) -> Partition | None:
    """By number, else by label; a container counts, since a user may want that there is none."""
    partitions = disk.table.partitions if disk.table else ()
    if subject.isdecimal():
        return next((each for each in partitions if each.number == int(subject)), None)
    return next((each for each in partitions if each.label == subject), None)


def _partition_problems(check: Check, disk: Inspection, partition: Partition) -> Iterator[Problem]:
    volume = disk.volumes.get(partition.number)
    block = volume.superblock if volume else None
    unreadable = volume.error if volume else None
    labels = {"label": partition.label or "none", "fs-label": (block.label if block else None) or "none"}
    found = {
        "number": str(partition.number),
        "uuid": partition.uuid or "none",
        "filesystem": unreadable or (block.type if block else "none"),
        "fs-uuid": (block.uuid if block else None) or "none",
    }
    yield from value_problems(check, labels)
    yield from value_problems(check, found, ignore_case=True)
    if "type" in check.expect and check.text("type").lower() not in (partition.type, partition.type_name):
        yield Problem("type", check.text("type"), _type(partition))
    for key in ("size", "min-size", "max-size"):
        yield from size_problems(check, key, partition.window.size)


def _type(partition: Partition) -> str:
    return f"{partition.type_name} ({partition.type})" if partition.type_name else partition.type


def _short(partition: Partition) -> str:
    return f"{partition.number} ({partition.label})" if partition.label else str(partition.number)


def _summary(disk: Inspection, partition: Partition) -> str:
    volume = disk.volumes.get(partition.number)
    holds = volume.superblock.type if volume and volume.superblock else "nothing that is known"
    return f"partition {_short(partition)} of {show_size(partition.window.size)}, with {holds}"
