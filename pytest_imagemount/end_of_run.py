"""The end of a run: the helper is seen off, and what was left, or could not be undone, fails the run, with the list.

Workers of pytest-xdist send theirs to the controller, which prints it.
"""

from __future__ import annotations

import atexit
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from _pytest.terminal import TerminalReporter

_LEFT, _KEPT = "imagemount_left", "imagemount_kept"


class EndOfRun:
    """Registered by the plugin as one object for each run."""

    _runs = 0  # in this process, one within the other: the first owns the helper

    def __init__(self) -> None:
        self._left: list[str] = []
        self._kept: list[str] = []

    def pytest_sessionstart(self) -> None:
        EndOfRun._runs += 1

    # A wrapper, to run after the last finalizer even when a second Ctrl-C has skipped some; the innermost, so that
    # the terminal's summary and a worker's last message come after it.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Undo what is left, and judge it."""
        interrupted = True
        try:
            result = yield
            interrupted = session.exitstatus == pytest.ExitCode.INTERRUPTED
        finally:
            EndOfRun._runs -= 1
            # Not imported means that nothing was mounted.
            if "pytest_imagemount.pending" in sys.modules and EndOfRun._runs == 0:
                self._sweep(session.config, interrupted)
            if self._left and session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
        return result

    def _sweep(self, config: pytest.Config, interrupted: bool) -> None:
        from .last_sweep import sweep

        swept = sweep(blame=not interrupted)
        self._left += swept.left
        self._kept += swept.kept
        output: dict[str, Any] | None = getattr(config, "workeroutput", None)
        if output is not None:
            output[_LEFT], output[_KEPT] = self._left, self._kept
            # To the controller, a worker that is ended by a signal is one that was killed; it goes on without it.
            _end_as_told()

    def pytest_runtest_makereport(self, item: pytest.Item) -> None:
        """See to it that the run ends after a SIGTERM whose exception was swallowed, as an ``except:`` does."""
        pending = sys.modules.get("pytest_imagemount.pending")
        if pending is not None and pending.LIVE.guard.received is not None:
            item.session.shouldstop = f"signal {pending.LIVE.guard.received} came while an image was mounted"

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """pytest-xdist, in the controller: a worker has ended, by itself or not."""
        output = getattr(node, "workeroutput", None) or {}
        self._left += [f"{node.gateway.id}: {text}" for text in output.get(_LEFT, ())]
        self._kept += output.get(_KEPT, ())

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        _section(terminalreporter, "kept", self._kept, bold=True)
        _section(terminalreporter, "left behind", self._left, bold=True, red=True)


def _section(reporter: TerminalReporter, title: str, texts: Sequence[str], **markup: bool) -> None:
    if texts:
        reporter.section(f"imagemount: {title}", sep="=", **markup)
        for text in texts:
            reporter.line(text)


def _end_as_told() -> None:
    pending = sys.modules.get("pytest_imagemount.pending")
    if pending is not None:
        pending.LIVE.guard.end_as_told()


# Registered before all that a test run registers, so that it runs after it: this ends the process by the signal that
# was sent to it, as whoever sent it expects, and skips what would come later.
atexit.register(_end_as_told)
