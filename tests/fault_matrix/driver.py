"""One cell: a real pytest run is started, struck at its moment, and then what is left is looked for."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_imagemount.engine.folders import lock_folder
from pytest_imagemount.engine.mountinfo import mounts
from pytest_imagemount.engine.undo import wait_until

from . import lane
from .events import Moment
from .run import Invalid, Run, devices_of, invalid, options_of, tests_of
from .script import tell, told
from .strike import COME_TIMEOUT, PAUSE, strike

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .cells import Cell
    from .observe import Watch

PROMISE = 5.0
"""Seconds from the event until nothing may be left."""
_END = 30.0  # seconds for a run to end after the event
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Result:
    """What came of a cell.

    :param left: what was left when the promised time was over
    :param seconds: from the event until nothing was left
    :param problem: why the run does not count: the event did not strike, or not as it should; empty if it did
    :param output: of the run, the end
    """

    cell: str
    left: tuple[str, ...]
    seconds: float
    problem: str
    output: str

    @property
    def green(self) -> bool:
        """Whether the event struck and nothing was left."""
        return not self.left and not self.problem

    def __str__(self) -> str:
        lines = [f"left: {line}" for line in self.left] + ([self.problem] if self.problem else [])
        return "\n".join([self.cell, *(f"  {line}" for line in lines)])


def run_cell(cell: Cell) -> Result:
    """Run it in this process, which has to be a lane (see :func:`.lane.enter_lane`)."""
    mark = f"F{os.getpid()}n{next(_numbers)}"
    with ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="faults-"))
        undo.callback(shutil.rmtree, folder)
        before = mounts()
        undo.callback(lane.clear_up, before, mark)
        run = Run(cell, folder, mark)
        try:
            return _drive(run)
        except Invalid as error:
            return Result(str(cell), tuple(run.watch.left()), 0, str(error), run.output())


def _drive(run: Run) -> Result:
    cell = run.cell
    with _device_held(cell):
        run.process = run.start(tests_of(cell), options_of(cell))
        run.await_told("reached", COME_TIMEOUT)
        if run.watch.mounted() < 1:
            invalid("nothing was mounted when the event struck")
        tell(run.folder, "seen")
        since = strike(run)
        time.sleep(PAUSE)
        tell(run.folder, "go")
    if cell.event.name.startswith("helper-sigkill"):
        since = _next_run(run)
    left = _left_until(run.watch, since + PROMISE)
    seconds = time.monotonic() - since
    problem = _judge(run)
    return Result(str(cell), (*left, *run.watch.changed()), seconds, problem, run.output())


def _left_until(watch: Watch, deadline: float) -> list[str]:
    """What is left when nothing is, or at the deadline (time.monotonic)."""
    while True:
        begin = time.monotonic()
        if not (left := watch.left()) or begin >= deadline:
            return left
        # A look costs much in the lab, whose one processor is needed for what is looked at.
        time.sleep(2 * (time.monotonic() - begin))


def _next_run(run: Run) -> float:
    """Have the run end, and another one mount; returns when it had done so."""
    assert run.process is not None
    ended = run.process
    wait_until(lambda: ended.poll() is not None, _END)
    if ended.returncode is None:
        invalid("the run did not end")
    following = run.start(("test_struck.py::test_next_run",), ())
    wait_until(lambda: following.poll() is not None, COME_TIMEOUT)
    if following.returncode != 0:
        invalid(f"the next run ended with status {following.returncode}")
    return float(told(run.folder, "next run has mounted") or invalid("the next run has mounted nothing"))


def _judge(run: Run) -> str:
    """What is wrong with how the run ended; empty when nothing is."""
    assert run.process is not None
    event, process = run.cell.event, run.process
    if not wait_until(lambda: process.poll() is not None, _END):
        return "the run did not end"
    expected = event.worker_statuses if run.cell.workers else event.statuses
    if process.returncode not in expected:
        return f"exit status {process.returncode}, not {' or '.join(map(str, sorted(expected)))}"
    if run.cell.workers and event.spares_others and told(run.folder, "other has passed") is None:
        return "the other worker's test has failed"
    if not wait_until(lambda: not lane.processes(), _END):
        return f"still running: {lane.processes()}"
    return ""


@contextmanager
def _device_held(cell: Cell) -> Iterator[None]:
    """Hold the lease of the last device where the run is to wait for one."""
    if cell.moment is not Moment.WAITING:
        yield
        return
    with (lock_folder() / f"nbd{devices_of(cell) - 1}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
