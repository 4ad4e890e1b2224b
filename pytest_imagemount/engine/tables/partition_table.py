"""A partition table as values, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..reader import Window
from ..text import human_size, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Kind = Literal["gpt", "mbr", "apple", "bsd", "sun"]

MOST_PARTITIONS = 255
"""Linux numbers no more on one disk (DISK_MAX_PARTS)."""

_MOST_WARNINGS = 32
_MOST_LABEL_COLUMNS = 40

_TITLES: dict[Kind, str] = {
    "gpt": "GPT partition table",
    "mbr": "MBR partition table",
    "apple": "Apple partition map",
    "bsd": "BSD disklabel",
    "sun": "Sun disklabel",
}
_NO_AUTO, _READ_ONLY, _GROWFS = 63, 60, 59
# Bit to name. Sources: UEFI Specification 2.10, section 5.3.3, table 5.8; Discoverable Partitions Specification.
_ATTRIBUTES = {
    0: "required",
    1: "no-block-io",
    2: "legacy-boot",
    _GROWFS: "grow-file-system",
    _READ_ONLY: "read-only",
    _NO_AUTO: "no-auto",
}


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition; ``number`` as Linux counts it.

    ``type`` is a GUID in lower case (GPT), ``"0x83"`` (MBR), ``"bsd:0x07"`` or ``"sun:0x02"`` (a disklabel's code), or
    the map's own word (``"Apple_HFS"``). ``uuid`` is what ``PARTUUID=`` takes, in lower case: the partition's own GUID,
    or the form the kernel gives for an MBR, disk id and number. ``container`` marks one that holds other partitions and
    no file system: an MBR's extended partition, or one with a BSD disklabel inside; ``logical`` those of the former.
    ``attributes`` are the 64 attribute bits of a GPT.
    """

    number: int
    window: Window
    type: str
    type_name: str | None
    uuid: str | None
    label: str | None = None
    logical: bool = False
    container: bool = False
    attributes: int = 0

    @property
    def no_auto(self) -> bool:
        """It is not to be mounted without being asked for by name."""
        return self._has(_NO_AUTO)

    @property
    def read_only(self) -> bool:
        """It is to be mounted read-only."""
        return self._has(_READ_ONLY)

    @property
    def growfs(self) -> bool:
        """Its file system is to grow to its size when it is mounted."""
        return self._has(_GROWFS)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """The attributes that are set, by name; ``bit-N`` where the bit has none."""
        return tuple(_ATTRIBUTES.get(bit, f"bit-{bit}") for bit in range(64) if self._has(bit))

    def _has(self, bit: int) -> bool:
        return bool(self.attributes >> bit & 1)

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
            "container": self.container,
            "attributes": list(self.attribute_names),
        }


@dataclass(frozen=True, slots=True)
class PartitionTable:
    """A partition table. ``warnings`` says what is wrong with it and was got over.

    ``sector_size`` and ``disk_size`` are in bytes; the latter is 0 where the disk is not known.
    """

    kind: Kind
    sector_size: int
    uuid: str | None
    partitions: tuple[Partition, ...]
    warnings: tuple[str, ...] = ()
    disk_size: int = 0

    def find(self, number: int) -> Partition | None:
        """The partition of that number."""
        return next((partition for partition in self.partitions if partition.number == number), None)

    @property
    def title(self) -> str:
        """Kind, sector size and id in a line."""
        return f"{_TITLES[self.kind]}, {self.sector_size}-byte sectors" + (f", id {self.uuid}" if self.uuid else "")

    def render(self, partitions: Sequence[Partition] | None = None, notes: Mapping[int, str] | None = None) -> str:
        """The table as aligned lines of text that are safe to print.

        :param partitions: only these of it, and no warnings
        :param notes: number to a remark on that partition, each put on a line below
        """
        shown = self.partitions if partitions is None else partitions
        lines = [self.title]
        if shown:
            rows = [
                ("#", "start", "size", "type", "partlabel", "partuuid"),
                *((*columns(one), one.uuid or "-") for one in shown),
            ]
            lines += ["  " + row for row in align(rows, right=3)]
        else:
            lines.append("  no partitions")
        lines += [f"  {number}: {printable(note)}" for number, note in (notes or {}).items()]
        if partitions is None:
            lines += [f"  warning: {printable(warning)}" for warning in self.warnings]
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


def fit(number: int, window: Window, disk_size: int, warnings: list[str]) -> Window | None:
    """``window`` of partition ``number``, cut at the end of a disk of ``disk_size`` bytes; None where it starts there.

    So the kernel does it. What was done is added to ``warnings``.
    """
    if window.offset >= disk_size:
        text = f"partition {number} starts at byte {window.offset}, beyond the end of the disk at {disk_size}: left out"
        warnings.append(text)
        return None
    if window.end > disk_size:
        warnings.append(f"partition {number} ends at byte {window.end}, beyond the end of the disk at {disk_size}: cut")
    return Window(window.offset, min(window.end, disk_size) - window.offset)


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


def _type_text(partition: Partition) -> str:
    """The type for people: a GUID says nothing to who has its name; an MBR's code is what other tools show."""
    if partition.type_name is None:
        return printable(partition.type)
    return f"{partition.type_name} ({partition.type})" if partition.type.startswith("0x") else partition.type_name


def label_text(label: str | None) -> str:
    """A label for a column of a table: safe to print, and cut where escapes make it endless."""
    text = printable(label or "-")
    return text if len(text) <= _MOST_LABEL_COLUMNS else text[: _MOST_LABEL_COLUMNS - 3] + "..."


def align(rows: Sequence[Sequence[str]], *, right: int) -> list[str]:
    """Each row as a line, in columns; the first ``right`` of them, which are numbers and sizes, to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column < right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def columns(partition: Partition) -> tuple[str, str, str, str, str]:
    """Number, start, size, type and label for people."""
    return (
        str(partition.number),
        human_size(partition.window.offset),
        human_size(partition.window.size),
        _type_text(partition),
        label_text(partition.label),
    )
