"""The results as a table: one row an event, one column a backend."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from .cells import BACKENDS, Cell, cells, exclusions
from .events import EVENTS, Event

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .driver import Result

BEGIN, END = "<!-- begin: written by ./tests/faults --lab --write -->", "<!-- end -->"
_COLUMNS = {"loop": "loop", "fuse": "FUSE", "nbd": "NBD"}
_NONE = "makes no sense"


def render(results: Mapping[str, Result], kernels: Mapping[str, str]) -> str:
    """Markdown: the sum, the table, and what is not in it and why.

    :param results: by the name of the cell; cells without a result count as not run
    :param kernels: the release of the kernel on which each backend ran
    """
    lines = [_sum(results, kernels), ""]
    lines += [f"| event | {' | '.join(_COLUMNS.values())} | what sees to it |", "|---|" + "---|" * 4]
    for event in EVENTS:
        entries = [_entry(event, backend, results) for backend in BACKENDS]
        lines.append(f"| {event.title} | {' | '.join(entries)} | {event.mechanism} |")
    lines += ["", "Combinations that make no sense, and so are not run:", ""]
    lines += [f"- {what}: {reason}." for what, reason in exclusions()]
    return "\n".join(lines) + "\n"


def write(document: Path, text: str) -> None:
    """Put ``text`` between the markers in ``document``."""
    before, _, rest = document.read_text().partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        raise ValueError(f"{document} has no lines {BEGIN!r} and {END!r}")
    document.write_text(f"{before}{BEGIN}\n{text}{END}{after}")


def _sum(results: Mapping[str, Result], kernels: Mapping[str, str]) -> str:
    green = sum(result.green for result in results.values())
    total = len(cells())
    where: dict[str, list[str]] = {}
    for backend, release in kernels.items():
        where.setdefault(release.partition("-")[0], []).append(_COLUMNS[backend])
    ran = "; ".join(f"{', '.join(columns)} on Linux {release}" for release, columns in where.items())
    slowest = max((result.seconds for result in results.values()), default=0.0)
    text = f"{green} of {total} cells: nothing left. Slowest: {slowest:.1f} s after the event. {ran}."
    if len(results) < total:
        text += f" Not run: {total - len(results)}."
    return text


def _entry(event: Event, backend: str, results: Mapping[str, Result]) -> str:
    of_row = [cell for cell in cells() if cell.event is event and cell.backend == backend]
    ran = [results[str(cell)] for cell in of_row if str(cell) in results]
    if not ran:
        return "not run" if of_row else _NONE
    red = [result for result in ran if not result.green]
    if not red:
        return f"0 left ({len(ran)} runs, {max(result.seconds for result in ran):.1f} s)"
    what = Counter(line for result in red for line in (*result.left, result.problem) if line)
    return f"**{len(red)} of {len(ran)} red**: " + "; ".join(line.replace("|", "/") for line, _ in what.most_common(3))


def name_of(cell: Cell) -> str:
    """For a line of progress."""
    return f"{cell.event.title}, {cell.moment.value}, {_COLUMNS[cell.backend]}{', -n 2' if cell.workers else ''}"
