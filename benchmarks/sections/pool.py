"""Whether those who wait for an NBD device are served in turn: many workers on few devices."""

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

WORKERS, DEVICES, TESTS = 8, 2, 400
_CASE = f"{WORKERS} workers, {DEVICES} devices"
_TEST = """\
import os, time
import pytest

@pytest.fixture(scope="session", autouse=True)
def started(session_mounted_image):
    # What a worker starts once, its helper and the storage daemon, is no wait; by FUSE it takes no device.
    with session_mounted_image({image!r}, 1, backend="fuse"):
        pass

@pytest.mark.parametrize("number", range({count}))
def test_it(number, mounted_image):
    start = time.monotonic()
    with mounted_image({image!r}, 1, backend="nbd", timeout=300):
        waited = time.monotonic() - start
    with open({waits!r}, "a") as file:
        file.write(f"{{waited}}\\n")
"""


def measure(bench: Bench) -> Outcomes:
    """One run of pytest with short tests, each of which asks for a device."""
    count = 16 if bench.quick else TESTS
    folder = bench.make_folder("pool")
    waits = folder / "waits"
    image = str(bench.image("qcow2"))
    (folder / "test_pool.py").write_text(_TEST.format(count=count, image=image, waits=str(waits)))
    return interleave([Case(_CASE, _run(folder, waits), warm_ups=0, missing=lacking("nbd", "fuse"))], 1)


def _run(folder: Path, waits: Path) -> Callable[[], Mapping[str, float]]:
    options = ["-q", "-n", str(WORKERS), f"--imagemount-nbd-devices={DEVICES}"]

    def run() -> Mapping[str, float]:
        waits.unlink(missing_ok=True)
        python(*pytest_arguments(folder, options), cwd=folder)
        values = [float(line) for line in waits.read_text().splitlines()]
        return {"mean": statistics.fmean(values), "longest": max(values), "tests": len(values)}

    return run


def table(results: Results) -> list[str]:
    """One row: how long tests waited, and how many times the mean the longest wait was."""
    rows = []
    for place, in_lab in (("this machine", False), ("lab", True)):
        outcome = results.outcome(_CASE, lab=in_lab)
        mean, longest, tests = (outcome.median(name) for name in ("mean", "longest", "tests"))
        if mean is None or longest is None or tests is None:
            continue
        rows.append((place, f"{tests:.0f}", milliseconds(mean), milliseconds(longest), f"{longest / mean:.1f}"))
    if not rows:
        return [f"Not measured: {results.outcome(_CASE).missing}."]
    return markdown_table(("where", "tests", "mean wait", "longest wait", "longest ÷ mean"), rows)


SECTION = Section(
    key="pool",
    title=f"{WORKERS} workers share {DEVICES} NBD devices",
    about=(
        f"{TESTS} tests that each mount one qcow2 by NBD, `pytest -n {WORKERS}` with "
        f"`--imagemount-nbd-devices={DEVICES}`. A wait is the time from asking for the image until it is mounted. Each "
        "worker has mounted the image by FUSE before: the start of its helper and storage daemon is no wait."
    ),
    measure=measure,
    table=table,
    in_lab=True,
)
