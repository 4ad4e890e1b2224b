"""What the plugin costs a pytest run that does not use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..bench import pytest_arguments, python
from ..rounds import Case, difference, interleave, timed
from .section import Results, Section, markdown_table, milliseconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..bench import Bench
    from ..rounds import Outcomes

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
        Case(WITHOUT, timed(lambda: python(*collect, "-p", "no:imagemount", cwd=folder))),
        Case(WITH, timed(lambda: python(*collect, cwd=folder))),
        Case(IMPORT, _import),
    ]
    return interleave(cases, bench.rounds(40))


def _import() -> Mapping[str, float]:
    return {"seconds": float(python("-c", _IMPORT))}


def table(results: Results) -> list[str]:
    """The runs, and by how much they differ."""
    rows = [(name, milliseconds(outcome.median())) for name, outcome in results.here.items()]
    added = difference(results.outcome(WITH), results.outcome(WITHOUT))
    rows.insert(2, ("**added by the plugin**", milliseconds(added)))
    return markdown_table((f"pytest --collect-only, {_TESTS:,} tests", "median"), rows)


SECTION = Section(
    key="unused",
    title="Installed and not used",
    about="The whole process; the difference is the median of the differences within the rounds.",
    measure=measure,
    table=table,
)
