"""The first mount of a process, which starts the helper and for qcow2 the storage daemon."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..bench import lacking, python
from ..rounds import Case, interleave
from .section import Results, Section, markdown_table, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..bench import Bench
    from ..rounds import Outcomes

RAW, FUSE = "raw", "qcow2, by FUSE"
_STEPS = (
    ("import", "import"),
    ("helper", "start of the helper"),
    ("mount", "first mount"),
    ("seconds", "all three"),
    ("second", "second mount"),
)


def measure(bench: Bench) -> Outcomes:
    """Each round is a new process."""
    cases = [
        Case(RAW, _fresh(bench, "raw", "loop"), missing=lacking("loop")),
        Case(FUSE, _fresh(bench, "qcow2", "fuse"), missing=lacking("loop", "fuse")),
    ]
    return interleave(cases, bench.rounds(30))


def _fresh(bench: Bench, format: str, backend: str) -> Callable[[], Mapping[str, float]]:
    image = str(bench.image(format))

    def run() -> Mapping[str, float]:
        found: Mapping[str, float] = json.loads(python("-m", "benchmarks.fresh", "first", image, backend))
        return found

    return run


def table(results: Results) -> list[str]:
    """One column a step."""
    rows = []
    for name, outcome in results.here.items():
        cells = [milliseconds(outcome.median(measure)) for measure, _ in _STEPS]
        resident = outcome.median("resident")
        rows.append((name, *cells, "-" if resident is None else f"{resident / 1024:.1f} MB"))
    return markdown_table(("image", *(title for _, title in _STEPS), "helper, resident"), rows)


SECTION = Section(
    key="first",
    title="First mount of a process",
    about="A fresh Python, from before the import of the package to the mounted file system; then once more.",
    measure=measure,
    table=table,
)
