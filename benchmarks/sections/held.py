"""Many mounts held at once, and what it takes to undo them, also after a kill."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from pytest_imagemount.errors import HelperLost

from ..bench import ROOT, lacking
from ..rounds import Case, interleave
from .section import Results, Section, markdown_table, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from matplotlib.axes import Axes

    from ..bench import Bench
    from ..rounds import Outcomes

COUNTS = (1, 10, 25, 50, 100)
KILLED = "killed"
LOADS = {"raw": ("raw", "loop"), "qcow2, by FUSE": ("qcow2", "fuse")}
_END_TIMEOUT = 30.0


def measure(bench: Bench) -> Outcomes:
    """Per count: all mounted, then all unmounted; and a process killed while it holds them."""
    counts = COUNTS[:2] if bench.quick else COUNTS
    cases = []
    for load, (format, backend) in LOADS.items():
        missing = lacking("loop", *(("fuse",) if backend == "fuse" else ()))
        for count in counts:
            run = _hold(bench, format, backend, count)
            cases.append(Case(f"{load}: {count}", run, missing=missing))
            killed = _kill(bench, format, backend, count)
            cases.append(Case(f"{load}, {KILLED}: {count}", killed, rounds=3, warm_ups=0, missing=missing))
    return interleave(cases, bench.rounds(10))


def _hold(bench: Bench, format: str, backend: str, count: int) -> Callable[[], Mapping[str, float]]:
    image = bench.image(format)

    def run() -> Mapping[str, float]:
        start = time.perf_counter()
        with ExitStack() as stack:
            for _ in range(count):
                stack.enter_context(bench.mount(image, 1, backend=backend))
            held = time.perf_counter()
        return {"mount": (held - start) / count, "unmount": (time.perf_counter() - held) / count}

    return run


def _kill(bench: Bench, format: str, backend: str, count: int) -> Callable[[], Mapping[str, float]]:
    """From SIGKILL to a process that holds ``count`` mounts until the end of its helper, which has undone them then."""
    argv = [sys.executable, "-m", "benchmarks.fresh", "hold", str(bench.image(format)), backend, str(count)]

    def run() -> Mapping[str, float]:
        process = subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with process:
            assert process.stdout is not None
            try:
                helper = os.pidfd_open(int(process.stdout.readline()))
                start = time.perf_counter()
            finally:
                process.kill()
        try:
            poll = select.poll()
            poll.register(helper, select.POLLIN)
            if not poll.poll(_END_TIMEOUT * 1000):
                raise HelperLost(
                    reason=f"it was still undoing {_END_TIMEOUT:.0f} s after the kill", hint="run it again"
                )
            return {"seconds": time.perf_counter() - start}
        finally:
            os.close(helper)

    return run


def table(results: Results) -> list[str]:
    """A row a count."""
    rows = []
    for count in sorted({int(name.rpartition(": ")[2]) for name in results.here}):
        cells = []
        for load in LOADS:
            held, killed = results.outcome(f"{load}: {count}"), results.outcome(f"{load}, {KILLED}: {count}")
            cells += [milliseconds(held.median("mount")), milliseconds(held.median("unmount"))]
            cells.append(milliseconds(killed.median()))
        rows.append((str(count), *cells))
    heads = [cell for load in LOADS for cell in (f"{load}: mount", "unmount", "all, after SIGKILL")]
    return markdown_table(("held at once", *heads), rows)


def draw(results: Results, axes: Axes) -> None:
    """Time of one mount over how many there are."""
    for load in LOADS:
        for measure_name in ("mount", "unmount"):
            medians = [(count, results.outcome(f"{load}: {count}").median(measure_name)) for count in COUNTS]
            points = [(count, median * 1000) for count, median in medians if median is not None]
            counts, values = [count for count, _ in points], [value for _, value in points]
            style = "-" if measure_name == "mount" else "--"
            axes.plot(counts, values, style, marker="o", label=f"{load}: {measure_name}")
    axes.set_xlabel("mounts held at once")
    axes.set_ylabel("ms each, median")
    axes.set_ylim(bottom=0)
    axes.legend()


SECTION = Section(
    key="held",
    title="1 to 100 mounts held at once",
    about=(
        "The time of each of N mounts, all held together, and of each unmount. `all, after SIGKILL`: a process that "
        "holds N mounts is killed; the time until its helper has undone all of them and has ended."
    ),
    measure=measure,
    table=table,
    draw=draw,
)
