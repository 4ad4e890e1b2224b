"""The results as tables: for every two values of two dimensions, where an image with both was mounted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .cells import RULES, Pair, cells
from .values import DIMENSIONS, MODES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .recording import Result
    from .values import Value

BEGIN, END = "<!-- begin: written by ./tests/images --lab --write -->", "<!-- end -->"
_TITLES = {"format": "Formats", "table": "Partition tables", "filesystem": "File systems", "volume": "Volumes"}
_GRIDS = (
    ("format", "table"),
    ("format", "filesystem"),
    ("format", "volume"),
    ("table", "filesystem"),
    ("table", "volume"),
    ("filesystem", "volume"),
)


@dataclass(frozen=True)
class Place:
    """Where cells ran.

    :param name: ``here`` or ``lab``
    :param kernel: its version, as ``6.18``
    :param lacks: the capabilities that some images take and it has not
    :param results: by the names of the cells
    """

    name: str
    kernel: str
    lacks: tuple[str, ...]
    results: Mapping[str, Result]

    def passed(self, cell: object) -> bool:
        """Whether the cell ran there and was green."""
        result = self.results.get(str(cell))
        return result is not None and result.outcome == "passed"

    def __str__(self) -> str:
        backends = sorted({result.backend for result in self.results.values() if result.backend})
        lacking = f", without {', '.join(self.lacks)}" if self.lacks else ""
        return f"*{self.name}* is Linux {self.kernel}{lacking}; its images were served by {', '.join(backends)}."


def render(places: list[Place]) -> str:
    """Markdown: the sum, the tables, and the reasons."""
    return "\n".join([*_sum(places), *_by_mode(places), *_grids(places), *_reasons()]) + "\n"


def is_complete(places: list[Place]) -> bool:
    """Whether every cell has passed somewhere, and none has failed anywhere."""
    failed = any(result.outcome == "failed" for place in places for result in place.results.values())
    return not failed and all(any(place.passed(cell) for place in places) for cell in cells())


def write(document: Path, text: str) -> None:
    """Put ``text`` between the markers in ``document``."""
    before, _, rest = document.read_text().partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        raise ValueError(f"{document} has no lines {BEGIN!r} and {END!r}")
    document.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def _sum(places: list[Place]) -> Iterator[str]:
    green = sum(any(place.passed(cell) for place in places) for cell in cells())
    yield f"{green} of {len(cells())} images were mounted, read, and where the mode says so, written to."
    yield " ".join(str(place) for place in places if place.results)


def _by_mode(places: list[Place]) -> Iterator[str]:
    yield from ("", "### Write modes", "", *_head("", MODES))
    for dimension in _TITLES:
        for value in DIMENSIONS[dimension]:
            pairs = [Pair(dimension, value.name, "mode", mode.name) for mode in MODES]
            yield _row(value, [_entry(pair, places) for pair in pairs])


def _grids(places: list[Place]) -> Iterator[str]:
    for rows, columns in _GRIDS:
        yield from ("", f"### {_TITLES[rows]} and {_TITLES[columns].lower()}", "", *_head("", DIMENSIONS[columns]))
        for value in DIMENSIONS[rows]:
            pairs = [Pair(rows, value.name, columns, other.name) for other in DIMENSIONS[columns]]
            yield _row(value, [_entry(pair, places) for pair in pairs])


def _head(corner: str, values: tuple[Value, ...]) -> tuple[str, str]:
    return f"| {corner} | {' | '.join(value.title for value in values)} |", "|---|" + "---|" * len(values)


def _row(value: Value, entries: list[str]) -> str:
    return f"| {value.title} | {' | '.join(entries)} |"


def _entry(pair: Pair, places: list[Place]) -> str:
    if reason := pair.reason_against:
        return f"({[rule.reason for rule in RULES].index(reason) + 1})"
    having = [cell for cell in cells() if pair in cell.pairs]
    return ", ".join(place.name for place in places if any(map(place.passed, having))) or "not run"


def _reasons() -> Iterator[str]:
    yield from ("", "What makes no sense, and so is not run:", "")
    yield from (f"{number}. {rule.what}: {rule.reason}." for number, rule in enumerate(RULES, 1))
