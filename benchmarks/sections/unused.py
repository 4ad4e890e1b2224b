"""What the plugin costs a pytest run that does not use it."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from ..bench import pytest_arguments, python
from ..rounds import Case, difference, interleave, timed
from .section import Results, Section, markdown_table, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ..bench import Bench
    from ..rounds import Outcomes

PROCESSOR = "processor"
WITHOUT, WITH, IMPORT = "not installed (-p no:imagemount)", "installed", "import pytest_imagemount.plugin alone"
_TESTS = 1000
_IMPORT = """\
import pytest, time
start = time.perf_counter()
import pytest_imagemount.plugin
print(time.perf_counter() - start)
"""


def measure(bench: Bench) -> Outcomes:
    """Each round is a process of its own."""
    folder = bench.make_folder("unused")
    (folder / "test_unused.py").write_text("".join(f"def test_{number}(): pass\n" for number in range(_TESTS)))
    collect = pytest_arguments(folder, ["--collect-only"])
    cases = [
        Case(WITHOUT, _process(folder, *collect, "-p", "no:imagemount")),
        Case(WITH, _process(folder, *collect)),
        Case(IMPORT, _import),
    ]
    return interleave(cases, bench.rounds(40))


def _process(folder: Path, *arguments: str) -> Callable[[], Mapping[str, float]]:
    whole = timed(lambda: python(*arguments, cwd=folder))

    def run() -> Mapping[str, float]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        measured = whole()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {**measured, PROCESSOR: after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime}

    return run


def _import() -> Mapping[str, float]:
    return {"seconds": float(python("-c", _IMPORT))}


def table(results: Results) -> list[str]:
    """The runs, and by how much they differ."""
    measures = ("seconds", PROCESSOR)
    rows = [
        (name, *(milliseconds(outcome.median(measure)) for measure in measures))
        for name, outcome in results.here.items()
    ]
    installed, without = results.outcome(WITH), results.outcome(WITHOUT)
    added = [milliseconds(difference(installed, without, measure)) for measure in measures]
    rows.insert(2, ("**added by the plugin**", *added))
    return markdown_table((f"pytest --collect-only, {_TESTS:,} tests", "time", "processor time"), rows)


SECTION = Section(
    key="unused",
    title="Installed and not used",
    about=(
        "The whole process; what is added is the median of the differences within the rounds. Imports wait for "
        "nothing, so processor time tells the same and is disturbed less."
    ),
    measure=measure,
    table=table,
)
