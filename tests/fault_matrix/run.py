"""The pytest run of one cell: its folder, what it is told to do, and how it is started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pytest_imagemount.engine import syscalls
from pytest_imagemount.engine.undo import wait_until

from . import lane
from .events import Actor, Moment
from .observe import Watch
from .script import Script, told

if TYPE_CHECKING:
    from .cells import Cell

TIMEOUT = 3.0
"""Seconds, for pytest-timeout."""
_FULL = {Moment.ATTACHING: "64k", Moment.MOUNTED: "4m", Moment.TEARDOWN: "4m"}
_HELPER_PAUSES = {"helper-sigkill-early": "before device", "helper-sigkill-late": "after mount"}
_SUITE = Path(__file__).with_name("struck.py")
_INI = "[pytest]\naddopts =\n"
_CONFTEST = "import sys\n\nsys.path.append({root!r})\n"
# hypothesis takes longer to import than everything else that such a run does.
_PLUGINS = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:benchmark")


class Invalid(Exception):
    """The event did not strike as it should."""


def invalid(reason: str) -> NoReturn:
    """:raises Invalid: always"""
    raise Invalid(reason)


class Run:
    """The pytest run of one cell, in its folder."""

    def __init__(self, cell: Cell, folder: Path, mark: str) -> None:
        self.cell, self.folder = cell, folder
        form = "raw" if cell.backend == "loop" else "qcow2"
        images = [folder / f"{mark}{name}.{form}" for name in "abc"]
        for image in images:
            shutil.copy(lane.template(form), image)
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        _script(cell, folder, images).write()
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
        return int(told(self.folder, name) or invalid(f"no test has told the pid of {name}"))

    def await_told(self, name: str, seconds: float) -> str:
        """What file ``name`` says, once it is there."""
        assert self.process is not None
        process = self.process
        wait_until(lambda: told(self.folder, name) is not None or process.poll() is not None, seconds)
        return told(self.folder, name) or invalid(f"the run did not come to {name!r}")


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
        timeout=TIMEOUT if is_timeout else 0,
        timeout_method=event.name.removeprefix("timeout-") if is_timeout else "",
        pause=_HELPER_PAUSES.get(event.name, pause),
        fail=stage if event.actor is Actor.HELPER else "",
        fail_for=2.0 if rest == "-long" else 0,
    )


def tests_of(cell: Cell) -> tuple[str, ...]:
    """What to run of the suite."""
    names = ("test_struck", "test_other_worker") if cell.workers else ("test_struck",)
    return tuple(f"test_struck.py::{name}" for name in names)


def options_of(cell: Cell) -> tuple[str, ...]:
    """pytest's options."""
    workers = ("-n", "2", "--max-worker-restart=0") if cell.workers else ()
    return (*workers, f"--imagemount-nbd-devices={devices_of(cell)}") if cell.moment is Moment.WAITING else workers


def devices_of(cell: Cell) -> int:
    """How many there are where one is waited for: for the first image, for the other worker, and one that we hold."""
    return 3 if cell.workers else 2
