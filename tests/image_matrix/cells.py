"""The cells of the matrix, the combinations that make no sense, and which cells run where."""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from functools import cache
from itertools import combinations, product
from typing import TYPE_CHECKING, NamedTuple

from .covering import covering
from .values import DIMENSIONS, FILESYSTEMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .values import Value


@dataclass(frozen=True)
class Cell:
    """One image and one way to mount it: the name of a value in each dimension."""

    format: str
    table: str
    filesystem: str
    volume: str
    mode: str

    def __str__(self) -> str:
        return "-".join(astuple(self))

    @property
    def values(self) -> tuple[Value, ...]:
        """The value in each dimension."""
        return tuple(_BY_NAME[name, getattr(self, name)] for name in DIMENSIONS)

    @property
    def pairs(self) -> frozenset[Pair]:
        """Every two of its values."""
        return frozenset(
            Pair(one, getattr(self, one), other, getattr(self, other)) for one, other in combinations(DIMENSIONS, 2)
        )

    @property
    def needs(self) -> tuple[str, ...]:
        """The capabilities that it takes."""
        return tuple(dict.fromkeys((*_ALWAYS, *(name for value in self.values for name in value.needs))))

    @property
    def has_lab_value(self) -> bool:
        """Whether there are kernels that cannot mount it for one of its values alone."""
        return any(value.in_lab for value in self.values)

    @property
    def reason_against(self) -> str | None:
        """Why this combination makes no sense, None if it does."""
        return next((rule.reason for rule in RULES if rule.is_against(vars(self))), None)


class Pair(NamedTuple):
    """Two values of two dimensions, which are in the order of :data:`~.values.DIMENSIONS`."""

    dimension: str
    name: str
    other_dimension: str
    other_name: str

    @property
    def reason_against(self) -> str | None:
        """Why the two make no sense together, None if they do."""
        sides = {self.dimension: self.name, self.other_dimension: self.other_name}
        return next((rule.reason for rule in RULES if rule.is_against(sides)), None)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Values of two dimensions that make no sense together, each with each, and why; ``what`` says it in words."""

    what: str
    reason: str
    dimension: str
    names: frozenset[str]
    other_dimension: str
    other_names: frozenset[str]

    def is_against(self, names: Mapping[str, str]) -> bool:
        """Whether it excludes those values, by their dimensions."""
        return names.get(self.dimension) in self.names and names.get(self.other_dimension) in self.other_names


_ALWAYS = ("privileged", "loop", "libblkid", "openat2")
_BY_NAME = {(dimension, value.name): value for dimension, values in DIMENSIONS.items() for value in values}
_WRITING = frozenset({"overlay", "rw"})
RULES = (
    Rule(
        what="dmg, bochs and cloop in mode `rw`",
        reason="qemu reads these formats and does not write them; use `overlay`",
        dimension="format",
        names=frozenset({"dmg", "bochs", "cloop"}),
        other_dimension="mode",
        other_names=frozenset({"rw"}),
    ),
    Rule(
        what="compressed images in mode `rw`",
        reason="what is mounted is an unpacked copy; use `overlay`, or unpack the image",
        dimension="format",
        names=frozenset({"raw.gz", "raw.xz", "raw.zst", "raw.bz2", "raw.lz4"}),
        other_dimension="mode",
        other_names=frozenset({"rw"}),
    ),
    Rule(
        what="split images in mode `rw`",
        reason="what is mounted is a copy in one piece; use `overlay`, or join the parts",
        dimension="format",
        names=frozenset({"raw.001"}),
        other_dimension="mode",
        other_names=frozenset({"rw"}),
    ),
    Rule(
        what="squashfs, erofs and iso9660 in modes `overlay` and `rw`",
        reason="these file systems cannot be written to",
        dimension="filesystem",
        names=frozenset({"squashfs", "erofs", "iso9660"}),
        other_dimension="mode",
        other_names=_WRITING,
    ),
    Rule(
        what="dm-verity in modes `overlay` and `rw`",
        reason="verified data can only be read",
        dimension="volume",
        names=frozenset({"verity"}),
        other_dimension="mode",
        other_names=_WRITING,
    ),
    Rule(
        what="btrfs subvolumes in other file systems",
        reason="subvolumes are a thing of btrfs",
        dimension="volume",
        names=frozenset({"subvolume"}),
        other_dimension="filesystem",
        other_names=frozenset(value.name for value in FILESYSTEMS) - {"btrfs"},
    ),
)
"""Every combination that makes no sense is against one of these."""


def every_combination() -> Iterator[Cell]:
    """All of them, also those that make no sense."""
    for names in product(*([value.name for value in values] for values in DIMENSIONS.values())):
        yield Cell(*names)


@cache
def cells() -> tuple[Cell, ...]:
    """Every cell that runs, in an order in which those that are built of the same come together.

    Among those that most kernels can mount each value comes with each other at least once, so that most of the matrix
    is proven without the lab; those with a value that only some kernels have add what is missing.
    """
    possible = [cell for cell in every_combination() if cell.reason_against is None]
    common = [cell for cell in possible if not cell.has_lab_value]
    found = covering(common, key=str, parts=lambda cell: cell.pairs)
    done = frozenset().union(*(cell.pairs for cell in found))
    rest = [cell for cell in possible if cell.has_lab_value]
    found += covering(rest, key=str, parts=lambda cell: cell.pairs - done)
    return tuple(sorted(found, key=lambda cell: (cell.filesystem, cell.table == "gpt-4096", cell.volume, str(cell))))


def lab_cells() -> list[Cell]:
    """The cells that run in the lab: those with a value that wants it, which are some of every format, by NBD."""
    return [cell for cell in cells() if cell.has_lab_value]


def all_pairs() -> Iterator[Pair]:
    """Every two values of two dimensions, also those that make no sense together."""
    for one, other in combinations(DIMENSIONS, 2):
        for value, other_value in product(DIMENSIONS[one], DIMENSIONS[other]):
            yield Pair(one, value.name, other, other_value.name)


assert [field.name for field in fields(Cell)] == list(DIMENSIONS)
