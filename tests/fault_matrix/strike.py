"""The event: a signal to the right process, or a moment that the run itself tells."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from . import lane
from .events import Actor
from .run import TIMEOUT, invalid
from .script import tell_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from .run import Run

COME_TIMEOUT = 60.0
"""Seconds for a run to come to its moment."""
PAUSE = 0.1
"""Seconds: a second Ctrl-C, and the helper's going on, come so much later."""


def strike(run: Run) -> float:
    """Have the event happen; returns when it did (time.monotonic)."""
    event, folder = run.cell.event, run.folder
    if event.actor in (Actor.TEST, Actor.HELPER):
        return float(run.await_told("event", COME_TIMEOUT))
    if event.actor is Actor.TIMEOUT:
        since = float(run.await_told("started", COME_TIMEOUT)) + TIMEOUT
        time.sleep(max(0.0, since - time.monotonic()))
    else:
        since = time.monotonic()
        _SIGNALS.get(event.name, _to_struck_process)(run)
    tell_now(folder, "event")
    return since


def _to_struck_process(run: Run) -> None:
    os.kill(run.pid("struck process"), signal.Signals[run.cell.event.name.upper()])


def _to_controller(number: signal.Signals) -> Callable[[Run], None]:
    def send(run: Run) -> None:
        assert run.process is not None
        run.process.send_signal(number)

    return send


def _press_ctrl_c(times: int) -> Callable[[Run], None]:
    """SIGINT to the whole group, as a terminal sends it."""

    def press(run: Run) -> None:
        assert run.process is not None
        for time_pressed in range(times):
            if time_pressed:
                time.sleep(PAUSE)
            with suppress(ProcessLookupError):  # it has ended already
                os.killpg(run.process.pid, signal.SIGINT)

    return press


def _kill_daemon(run: Run) -> None:
    helper = run.pid("helper")
    for pid in lane.processes():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if int(fields[1]) == helper and "qemu-storage-daemon" in Path(f"/proc/{pid}/cmdline").read_text():
            os.kill(pid, signal.SIGKILL)
            return
    invalid("there is no storage daemon to kill")


def _kill_helper(run: Run) -> None:
    os.kill(run.pid("helper"), signal.SIGKILL)


_SIGNALS: dict[str, Callable[[Run], None]] = {
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
