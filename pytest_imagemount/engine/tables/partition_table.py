"""A partition table as values, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..text import human_size, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..reader import Window

_MOST_ROWS = 256
_MOST_WARNINGS = 32


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition; ``number`` as Linux counts it.

    ``type`` is ``"0x83"`` or a GUID in lower case. ``uuid`` is what ``PARTUUID=`` takes, in lower case: the partition's
    own GUID, or the form the kernel gives for an MBR, disk id and number. ``container`` marks an MBR's extended
    partition, which holds the logical ones and no file system.
    """

    number: int
    window: Window
    type: str
    type_name: str | None
    uuid: str | None
    label: str | None = None
    logical: bool = False
    container: bool = False

    def to_json(self) -> dict[str, Any]:
        """The partition as JSON values; offset and size in bytes."""
        return {
            "number": self.number,
            "offset": self.window.offset,
            "size": self.window.size,
            "type": self.type,
            "type_name": self.type_name,
            "uuid": self.uuid,
            "label": self.label,
            "logical": self.logical,
        }


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """A partition table. ``sector_size`` is in bytes; ``warnings`` says what is wrong with it and was got over."""

    kind: Literal["gpt", "mbr"]
    sector_size: int
    uuid: str | None
    partitions: tuple[Partition, ...]
    warnings: tuple[str, ...] = ()

    def find(self, number: int) -> Partition | None:
        """The partition of that number."""
        return next((partition for partition in self.partitions if partition.number == number), None)

    def render(self, partitions: Sequence[Partition] | None = None) -> str:
        """The table as aligned lines of text that are safe to print; only ``partitions`` of it when given."""
        shown = self.partitions if partitions is None else partitions
        lines = [f"{self.kind.upper()} partition table, {self.sector_size}-byte sectors, id {self.uuid or 'none'}"]
        if shown:
            rows = [("#", "start", "size", "type", "label", "uuid"), *(_row(one) for one in shown[:_MOST_ROWS])]
            widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
            lines += ["  " + _align(row, widths) for row in rows]
        else:
            lines.append("  no partitions")
        if len(shown) > _MOST_ROWS:
            lines.append(f"  and {len(shown) - _MOST_ROWS} more")
        if partitions is None:
            lines += [f"  warning: {warning}" for warning in self.warnings]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The table as JSON values."""
        return {
            "kind": self.kind,
            "sector_size": self.sector_size,
            "uuid": self.uuid,
            "partitions": [partition.to_json() for partition in self.partitions],
            "warnings": list(self.warnings),
        }


def limit_warnings(warnings: Iterable[str]) -> tuple[str, ...]:
    """``warnings``, cut where a hostile table would make them endless."""
    kept = list(warnings)
    if len(kept) > _MOST_WARNINGS:
        kept[_MOST_WARNINGS:] = [f"and {len(kept) - _MOST_WARNINGS} more of the kind"]
    return tuple(kept)


def overlaps(partitions: Iterable[Partition]) -> list[str]:
    """A warning for each partition that starts before the end of another one."""
    warnings = []
    reached, owner = 0, 0
    for partition in sorted(partitions, key=lambda one: one.window.offset):
        if partition.window.offset < reached and not partition.container:
            warnings.append(f"partition {partition.number} overlaps partition {owner}")
        if partition.window.end > reached and not partition.container:
            reached, owner = partition.window.end, partition.number
    return warnings


def _row(partition: Partition) -> tuple[str, ...]:
    return (
        str(partition.number),
        human_size(partition.window.offset),
        human_size(partition.window.size),
        _type_text(partition),
        printable(partition.label or "-"),
        partition.uuid or "-",
    )


def _type_text(partition: Partition) -> str:
    """A GUID says nothing to a reader who has its name; an MBR's code is what other tools show."""
    if partition.type_name is None:
        return partition.type
    return f"{partition.type_name} ({partition.type})" if partition.type.startswith("0x") else partition.type_name


def _align(row: tuple[str, ...], widths: list[int]) -> str:
    """Numbers and sizes to the right, text to the left."""
    cells = [
        cell.rjust(width) if column < 3 else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
