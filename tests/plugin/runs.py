"""pytest runs as processes of their own, to be sent signals while they mount."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from pytest_imagemount.engine.undo import wait_until
from tests.leaks import snapshot

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class Run:
    """``pytest`` over the files in ``folder``, in a process group of its own.

    The tests tell by files in ``folder`` how far they are. When it ends, nothing of it may be left on the machine.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self._before = snapshot()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
            cwd=folder,
            env={**environment, "PYTHONFAULTHANDLER": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):  # all of its group has ended
            os.killpg(self.process.pid, signal.SIGKILL)
        output, _ = self.process.communicate()
        if error is not None and output:
            error.add_note(f"output of the run:\n{output}")

    def wait_for(self, name: str) -> str:
        """The content of file ``name``, once a test has written it."""
        path = self.folder / name
        assert wait_until(lambda: path.is_file() and path.read_text() != "", 30), f"no test has written {name}"
        return path.read_text()

    def wrote(self, name: str) -> bool:
        """Whether a test has written file ``name``."""
        return (self.folder / name).is_file()

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def press_ctrl_c(self) -> None:
        """Send SIGINT to the whole group, as a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self, seconds: float = 20) -> tuple[int, str]:
        """Exit status (negative: the signal that ended it) and output. Fails when anything is left 5 s later."""
        output, _ = self.process.communicate(timeout=seconds)
        wait_until(lambda: snapshot() <= self._before, 5)
        left = snapshot() - self._before
        assert not left, f"left behind: {sorted(left)}\n{output}"
        return self.process.returncode, output
