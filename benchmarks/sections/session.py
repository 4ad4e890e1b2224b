"""What it costs that each worker mounts a session's image for itself."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from ..bench import lacking, pytest_arguments, python
from ..rounds import Case, interleave
from .section import Results, Section, markdown_table, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ..bench import Bench
    from ..rounds import Outcomes

WORKERS = 8
_LOADS = {"raw": ("raw", "loop"), "qcow2, by FUSE": ("qcow2", "fuse")}
_TEST = """\
import time
import pytest

@pytest.fixture(scope="session")
def image(session_mounted_image):
    start = time.monotonic()
    with session_mounted_image({image!r}, 1, backend={backend!r}) as first:
        mounted = time.monotonic()
        with session_mounted_image({image!r}, 1, backend={backend!r}):
            again = time.monotonic()
        with open({times!r}, "a") as file:
            file.write(f"{{mounted - start}} {{again - mounted}}\\n")
        yield first

@pytest.mark.parametrize("number", range(64))
def test_it(number, image):
    assert (image / "etc/hostname").read_text() == "web01\\n"
"""


def measure(bench: Bench) -> Outcomes:
    """Runs of pytest whose tests share one mount a worker."""
    cases = []
    for load, (format, backend) in _LOADS.items():
        folder = bench.make_folder(f"session-{backend}")
        image, times = str(bench.image(format)), folder / "times"
        (folder / "test_session.py").write_text(_TEST.format(image=image, backend=backend, times=str(times)))
        missing = lacking("loop", *(("fuse",) if backend == "fuse" else ()))
        cases.append(Case(load, _run(folder, times, 2 if bench.quick else WORKERS), warm_ups=0, missing=missing))
    return interleave(cases, bench.rounds(5))


def _run(folder: Path, times: Path, workers: int) -> Callable[[], Mapping[str, float]]:
    def run() -> Mapping[str, float]:
        times.unlink(missing_ok=True)
        python(*pytest_arguments(folder, ["-q", "-n", str(workers)]), cwd=folder)
        pairs = [[float(value) for value in line.split()] for line in times.read_text().splitlines()]
        first, again = (statistics.median(column) for column in zip(*pairs, strict=True))
        return {"first": first, "again": again}

    return run


def table(results: Results) -> list[str]:
    """A row a format."""
    rows = [
        (load, milliseconds(outcome.median("first")), milliseconds(outcome.median("again")))
        for load in _LOADS
        if (outcome := results.outcome(load))
    ]
    return markdown_table(("image", "first mount of a worker, helper included", "one more"), rows)


SECTION = Section(
    key="session",
    title=f"`session_mounted_image` under `-n {WORKERS}`",
    about=(
        "Each worker mounts the session's image for itself. What a worker pays for it, once: the start of its helper "
        f"and the mount, while {WORKERS} workers do the same; and what a further mount takes then."
    ),
    measure=measure,
    table=table,
)
