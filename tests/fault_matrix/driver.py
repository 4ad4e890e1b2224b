"""One cell: a real pytest run is started, struck at its moment, and then what is left is looked for."""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_imagemount.engine import syscalls
from pytest_imagemount.engine.folders import lock_folder
from pytest_imagemount.engine.mountinfo import mounts
from pytest_imagemount.engine.undo import wait_until

from . import lane
from .events import Actor, Moment
from .observe import Watch
from .script import Script, tell, tell_now, told

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .cells import Cell

PROMISE = 5.0
"""Seconds from the event until nothing may be left."""
_START, _END = 60.0, 30.0  # seconds for a run to come to its moment, and to end after the event
_TIMEOUT = 3.0  # seconds, for pytest-timeout
_STRIKE_PAUSE = 0.1  # seconds: a second Ctrl-C, and the helper's going on, come so much later
_FULL = {Moment.ATTACHING: "64k", Moment.MOUNTED: "4m", Moment.TEARDOWN: "4m"}
_HELPER_PAUSES = {"helper-sigkill-early": "before device", "helper-sigkill-late": "after mount"}
_SUITE = Path(__file__).with_name("struck.py")
_INI = "[pytest]\naddopts =\n"
_CONFTEST = "import sys\n\nsys.path.append({root!r})\n"
# hypothesis takes longer to import than everything else that such a run does.
_PLUGINS = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:benchmark")
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


class _Invalid(Exception):
    """The event did not strike as it should."""


class _Run:
    """The pytest run of one cell, in its folder."""

    def __init__(self, cell: Cell, folder: Path, mark: str) -> None:
        self.cell, self.folder = cell, folder
        form = "raw" if cell.backend == "loop" else "qcow2"
        images = [folder / f"{mark}{name}.{form}" for name in "abc"]
        for image in images:
            shutil.copy(lane.template(form), image)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.script = _script(cell, folder, images)
        self.script.write()
        (folder / "pytest.ini").write_text(_INI)
        (folder / "conftest.py").write_text(_CONFTEST.format(root=str(Path(__file__).parents[2])))
        shutil.copy(_SUITE, folder / "test_struck.py")
        if cell.event.name == "disk-full":
            syscalls.mount("faults", str(self.temporary), "tmpfs", 0, f"size={_FULL[cell.moment]}")
        self.watch = Watch(mark, images, self.temporary, nbd=cell.backend == "nbd")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, tests: tuple[str, ...], options: tuple[str, ...]) -> subprocess.Popen[bytes]:
        """pytest over ``tests``, in a process group of its own; its output goes to a file."""
        ignored = ("PYTEST_", "IMAGEMOUNT_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ignored)}
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "pytest", "-v", "--no-header", *_PLUGINS, *options, *tests],
                cwd=self.folder,
                env={**environment, "TMPDIR": str(self.temporary)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        """What was printed, the end."""
        with suppress(FileNotFoundError):
            return (self.folder / "output").read_text(errors="replace")[-6000:]
        return ""

    def pid(self, name: str) -> int:
        """The pid that a test has told."""
        return int(told(self.folder, name) or _invalid(f"no test has told the pid of {name}"))

    def await_told(self, name: str, seconds: float) -> str:
        """What file ``name`` says, once it is there."""
        assert self.process is not None
        process = self.process
        wait_until(lambda: told(self.folder, name) is not None or process.poll() is not None, seconds)
        return told(self.folder, name) or _invalid(f"the run did not come to {name!r}")


def run_cell(cell: Cell) -> Result:
    """Run it in this process, which has to be a lane (see :func:`.lane.enter_lane`)."""
    mark = f"F{os.getpid()}n{next(_numbers)}"
    with ExitStack() as undo:
        folder = Path(tempfile.mkdtemp(prefix="faults-"))
        undo.callback(shutil.rmtree, folder)
        before = mounts()
        undo.callback(lane.clear_up, before, mark)
        run = _Run(cell, folder, mark)
        try:
            return _drive(run)
        except _Invalid as error:
            return Result(str(cell), tuple(run.watch.left()), 0, str(error), run.output())


def _drive(run: _Run) -> Result:
    cell = run.cell
    with _device_held(cell):
        run.process = run.start(_tests(cell), _options(cell))
        run.await_told("reached", _START)
        if run.watch.mounted() < 1:
            _invalid("nothing was mounted when the event struck")
        tell(run.folder, "seen")
        since = _strike(run)
        time.sleep(_STRIKE_PAUSE)
        tell(run.folder, "go")
    if cell.event.name.startswith("helper-sigkill"):
        since = _next_run(run)
    wait_until(lambda: not run.watch.left(), since + PROMISE - time.monotonic())
    left, seconds = run.watch.left(), time.monotonic() - since
    problem = _judge(run)
    return Result(str(cell), (*left, *run.watch.changed()), seconds, problem, run.output())


def _strike(run: _Run) -> float:
    """Have the event happen; returns when it did (time.monotonic)."""
    event, folder = run.cell.event, run.folder
    if event.actor in (Actor.TEST, Actor.HELPER):
        return float(run.await_told("event", _START))
    if event.actor is Actor.TIMEOUT:
        since = float(run.await_told("started", _START)) + _TIMEOUT
        time.sleep(max(0.0, since - time.monotonic()))
    else:
        since = time.monotonic()
        _SIGNALS.get(event.name, _to_struck_process)(run)
    tell_now(folder, "event")
    return since


def _to_struck_process(run: _Run) -> None:
    os.kill(run.pid("struck process"), signal.Signals[run.cell.event.name.upper()])


def _to_controller(number: signal.Signals) -> Callable[[_Run], None]:
    def send(run: _Run) -> None:
        assert run.process is not None
        run.process.send_signal(number)

    return send


def _press_ctrl_c(times: int) -> Callable[[_Run], None]:
    """SIGINT to the whole group, as a terminal sends it."""

    def press(run: _Run) -> None:
        assert run.process is not None
        for time_pressed in range(times):
            if time_pressed:
                time.sleep(_STRIKE_PAUSE)
            with suppress(ProcessLookupError):  # it has ended already
                os.killpg(run.process.pid, signal.SIGINT)

    return press


def _kill_daemon(run: _Run) -> None:
    helper = run.pid("helper")
    for pid in lane.processes():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if int(fields[1]) == helper and "qemu-storage-daemon" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
            return
    _invalid("there is no storage daemon to kill")


def _kill_helper(run: _Run) -> None:
    os.kill(run.pid("helper"), signal.SIGKILL)


_SIGNALS: dict[str, Callable[[_Run], None]] = {
    "ctrl-c": _press_ctrl_c(1),
    "ctrl-c-twice": _press_ctrl_c(2),
    "worker-sigkill": lambda run: os.kill(run.pid("struck process"), signal.SIGKILL),
    "controller-sigkill": _to_controller(signal.SIGKILL),
    "controller-sigterm": _to_controller(signal.SIGTERM),
    "helper-sigkill": _kill_helper,
    "helper-sigkill-early": _kill_helper,
    "helper-sigkill-late": _kill_helper,
    "daemon-sigkill": _kill_daemon,
}


def _next_run(run: _Run) -> float:
    """Have the run end, and another one mount; returns when it had done so."""
    assert run.process is not None
    ended = run.process
    wait_until(lambda: ended.poll() is not None, _END)
    if ended.returncode is None:
        _invalid("the run did not end")
    following = run.start(("test_struck.py::test_next_run",), ())
    wait_until(lambda: following.poll() is not None, _START)
    if following.returncode != 0:
        _invalid(f"the next run ended with status {following.returncode}")
    return float(told(run.folder, "next run has mounted") or _invalid("the next run has mounted nothing"))


def _judge(run: _Run) -> str:
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


def _script(cell: Cell, folder: Path, images: list[Path]) -> Script:
    event, moment = cell.event, cell.moment
    overlay = (
        "ro" if cell.backend == "loop" or (event.name == "disk-full" and moment is Moment.ATTACHING) else "overlay"
    )
    pause = ""
    if event.actor is not Actor.HELPER and event.name not in ("disk-full", "open-file", "chdir", "finalizer-exception"):
        pause = {Moment.ATTACHING: "before mount", Moment.TEARDOWN: "teardown"}.get(moment, "")
    stage, _, rest = event.name.partition("-fails")
    is_timeout = event.actor is Actor.TIMEOUT
    return Script(
        folder=str(folder),
        event=event.name,
        moment=moment.name,
        by_test=event.actor is Actor.TEST,
        backend=cell.backend,
        workers=cell.workers,
        image=str(images[0]),
        mode=overlay,
        second=str(images[1]),
        second_mode="overlay" if event.name == "disk-full" else "ro",
        others=str(images[2]),
        timeout=_TIMEOUT if is_timeout else 0,
        timeout_method=event.name.removeprefix("timeout-") if is_timeout else "",
        pause=_HELPER_PAUSES.get(event.name, pause),
        fail=stage if event.actor is Actor.HELPER else "",
        fail_for=2.0 if rest == "-long" else 0,
    )


def _tests(cell: Cell) -> tuple[str, ...]:
    names = ("test_struck", "test_other_worker") if cell.workers else ("test_struck",)
    return tuple(f"test_struck.py::{name}" for name in names)


def _options(cell: Cell) -> tuple[str, ...]:
    workers = ("-n", "2", "--max-worker-restart=0") if cell.workers else ()
    return (*workers, f"--imagemount-nbd-devices={_devices(cell)}") if cell.moment is Moment.WAITING else workers


def _devices(cell: Cell) -> int:
    """How many there are where one is waited for: for the first image, for the other worker, and one that we hold."""
    return 3 if cell.workers else 2


@contextmanager
def _device_held(cell: Cell) -> Iterator[None]:
    """Hold the lease of the last device where the run is to wait for one."""
    if cell.moment is not Moment.WAITING:
        yield
        return
    with (lock_folder() / f"nbd{_devices(cell) - 1}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _invalid(reason: str) -> Any:
    raise _Invalid(reason)
