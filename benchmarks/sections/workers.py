"""A fixed load spread over more and more workers of pytest-xdist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..bench import lacking, pytest_arguments, python
from ..rounds import Case, difference, interleave, timed
from .section import Results, Section, markdown_table, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

    from ..bench import Bench
    from ..rounds import Outcomes

WORKERS = (1, 2, 4, 8, 16)
_LOADS = {"no mount": "pass", "raw": "loop", "qcow2, by FUSE": "fuse"}
_TEST = """\
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_it(number{fixture}):
    {body}
"""


def measure(bench: Bench) -> Outcomes:
    """Each round is a pytest run of its own, of 400 tests."""
    count = 8 if bench.quick else 400
    workers = (2,) if bench.quick else WORKERS
    cases = []
    for load, backend in _LOADS.items():
        folder = bench.make_folder(f"load-{backend}")
        (folder / "test_load.py").write_text(_test(bench, backend, count))
        missing = "" if backend == "pass" else lacking("loop", *(("fuse",) if backend == "fuse" else ()))
        cases += [Case(f"{load}: {number}", _run(folder, number), warm_ups=0, missing=missing) for number in workers]
    return interleave(cases, bench.rounds(3))


def _test(bench: Bench, backend: str, count: int) -> str:
    if backend == "pass":
        return _TEST.format(count=count, fixture="", body="pass")
    image = str(bench.image("raw" if backend == "loop" else "qcow2"))
    body = f"with mounted_image({image!r}, 1, backend={backend!r}):\n        pass"
    return _TEST.format(count=count, fixture=", mounted_image", body=body)


def _run(folder: Path, workers: int) -> Callable[[], Mapping[str, float]]:
    return timed(lambda: python(*pytest_arguments(folder, ["-q", "-n", str(workers)]), cwd=folder))


def table(results: Results) -> list[str]:
    """A row a number of workers; after each total what is left of it without the run's own time."""
    rows = []
    for number in sorted({_workers(name) for name in results.here}):
        bare = results.outcome(f"no mount: {number}")
        cells = [milliseconds(bare.median())]
        for load in list(_LOADS)[1:]:
            outcome = results.outcome(f"{load}: {number}")
            cells += [milliseconds(outcome.median()), milliseconds(difference(outcome, bare))]
        rows.append((str(number), *cells))
    loads = [cell for load in list(_LOADS)[1:] for cell in (load, "of it the mounts")]
    return markdown_table(("workers", "no mount", *loads), rows)


def draw(results: Results, axes: Axes) -> None:
    """Total time over the number of workers, a line a load."""
    for load in _LOADS:
        outcomes = {_workers(name): outcome for name, outcome in results.here.items() if name.startswith(f"{load}: ")}
        points = [(number, median) for number, outcome in outcomes.items() if (median := outcome.median()) is not None]
        axes.plot([number for number, _ in points], [median for _, median in points], marker="o", label=load)
    axes.set_xscale("log", base=2)
    axes.set_xticks(WORKERS, [str(number) for number in WORKERS])
    axes.set_xlabel("workers (pytest -n)")
    axes.set_ylabel("seconds for the whole run")
    axes.set_ylim(bottom=0)
    axes.legend()


def _workers(name: str) -> int:
    return int(name.rpartition(": ")[2])


SECTION = Section(
    key="workers",
    title="400 mounts over 1 to 16 workers",
    about=(
        "`pytest -n N` over 400 tests that each mount once, as a whole process; `no mount` is the same run of 400 "
        "empty tests, so the rest is what the mounts add."
    ),
    measure=measure,
    table=table,
    draw=draw,
)
