"""A stack of undo steps: every step is tried, in reverse order, and what failed stays to be tried again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..errors import ImageMountError, TeardownError

if TYPE_CHECKING:
    from collections.abc import Callable


class UndoStack:
    """Undo steps, registered the moment the step that they undo has succeeded.

    ExitStack would do but for two things that teardown needs: each failure is told apart by the name of its step,
    and a failed step is not forgotten.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], object]]] = []

    def __bool__(self) -> bool:
        return bool(self._steps)

    def push(self, name: str, step: Callable[[], object]) -> None:
        """Register ``step``; ``name`` says what it undoes, in failure texts: ``detach /dev/loop3``."""
        self._steps.append((name, step))

    def run(self) -> list[str]:
        """Undo everything, last step first, and return one line for each step that failed."""
        failures: list[str] = []
        kept: list[tuple[str, Callable[[], object]]] = []
        while self._steps:
            name, step = self._steps.pop()
            try:
                step()
            except (OSError, ImageMountError) as error:
                failures.append(f"{name}: {error}")
                kept.append((name, step))
        self._steps = kept[::-1]
        return failures

    def close(self, subject: str) -> None:
        """As :meth:`run`, but a failure is raised.

        :raises TeardownError: naming ``subject`` and each step that failed
        """
        failures = self.run()
        if failures:
            raise TeardownError(subject=subject, failures=failures)


def wait_until(done: Callable[[], bool], timeout: float) -> bool:
    """Ask ``done`` until it is true or ``timeout`` seconds have passed; the pause grows from 0.1 ms to 20 ms.

    For facts that the kernel offers no descriptor to wait on.
    """
    deadline = time.monotonic() + timeout
    pause = 0.0001
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    return True
