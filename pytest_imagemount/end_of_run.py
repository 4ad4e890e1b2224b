"""The end of a run: the helper is seen off, and what it could not undo fails the run, with the list.

Workers of pytest-xdist send theirs to the controller, which prints it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from .errors import ImageMountError

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

_OUTPUT = "imagemount_left"


class EndOfRun:
    """Registered by the plugin as one object for each run."""

    def __init__(self) -> None:
        self._left: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Runs after the last finalizer, also after Ctrl-C."""
        # Not imported means that nothing was mounted.
        client = sys.modules.get("pytest_imagemount.client")
        if client is not None:
            try:
                client.close_current_client()
            except ImageMountError as error:
                self._left.append(str(error))
        output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[_OUTPUT] = self._left
        elif self._left and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """pytest-xdist, in the controller: a worker has ended, by itself or not."""
        output = getattr(node, "workeroutput", None) or {}
        self._left += [f"{node.gateway.id}: {text}" for text in output.get(_OUTPUT, ())]

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        if self._left:
            terminalreporter.section("imagemount: left behind", sep="=", red=True, bold=True)
            for text in self._left:
                terminalreporter.line(text)
