"""The seam between what is measured and how it is run, told and drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..rounds import Outcome, Outcomes, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from matplotlib.axes import Axes

    from ..bench import Bench


@dataclass(frozen=True, slots=True)
class Results:
    """What one section gave: on this machine, and in the lab, where None means that it was not run there."""

    here: Outcomes
    lab: Outcomes | None = None

    def outcome(self, name: str, *, lab: bool = False) -> Outcome:
        """The outcome of a case, an empty one where there is none."""
        found = (self.lab or {}) if lab else self.here
        return found.get(name, Outcome(missing="not measured"))


@dataclass(frozen=True, slots=True)
class Section:
    """One question.

    :param key: its name on the command line and in the names of pictures
    :param about: what was done, in a sentence or two of Markdown
    :param table: the lines of its Markdown table
    :param draw: draws the picture; None where there is none
    :param in_lab: whether it is measured in the lab too
    """

    key: str
    title: str
    about: str
    measure: Callable[[Bench], Outcomes]
    table: Callable[[Results], list[str]]
    draw: Callable[[Results, Axes], None] | None = None
    in_lab: bool = False


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """A Markdown table; the first ``left`` columns are set left, the others right."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return [line(cells[0]), "| " + " | ".join(rule) + " |", *(line(row) for row in cells[1:])]


def milliseconds(seconds: float | None) -> str:
    """``1.23 ms``, ``45.6 ms``, ``12.3 s``; a dash for None."""
    if seconds is None:
        return "-"
    if abs(seconds) >= 10:
        return f"{seconds:.1f} s"
    value = seconds * 1000
    return f"{value:.2f} ms" if abs(value) < 10 else f"{value:.1f} ms" if abs(value) < 100 else f"{value:.0f} ms"


def times(one: Outcome, other: Outcome, measure: str = "seconds") -> str:
    """How many times ``one`` is of ``other``: ``1.7``; a dash where one of them has no value."""
    found = ratio(one, other, measure)
    if found is None:
        return "-"
    return f"{found:.2f}" if found < 10 else f"{found:.0f}"


def megabytes(size: int) -> str:
    """``64 MB``, ``32 GB``, ``1 TB``, of 2**20 bytes and so on."""
    for shift, unit in ((40, "TB"), (30, "GB"), (20, "MB")):
        if size >= 1 << shift:
            return f"{size >> shift} {unit}"
    return f"{size >> 10} KB"
