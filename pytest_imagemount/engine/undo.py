"""A stack of undo steps: every step is tried, in reverse order, and what failed stays to be tried again."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from ..errors import ImageMountError, TeardownError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)
# Every step is tried, also when the time is up: this long, in seconds.
_LEAST = 0.02


class StillInUse(ImageMountError):
    """A step cannot be done before one that failed is done; by itself it is not worth a line."""


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
                # A folder cannot go while the mount on it stays, and that was told already.
                if not (failures and isinstance(error, StillInUse)):
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


@contextmanager
def deadline(at: float) -> Iterator[None]:
    """What waits inside waits no longer than until ``at`` (time.monotonic): the steps of a close share a deadline.

    A deadline inside another can only be earlier.
    """
    token = _deadline.set(min(at, _deadline.get()))
    try:
        yield
    finally:
        _deadline.reset(token)


def patience(timeout: float) -> float:
    """How many seconds a step that would wait for ``timeout`` may wait: less when a :func:`deadline` is near."""
    return max(min(timeout, _deadline.get() - time.monotonic()), min(timeout, _LEAST))


def wait_until(done: Callable[[], bool], timeout: float) -> bool:
    """Ask ``done`` until it is true or ``timeout`` seconds (see :func:`patience`) have passed.

    For facts that the kernel offers no descriptor to wait on. The pause grows from 0.1 ms to 20 ms.
    """
    deadline = time.monotonic() + patience(timeout)
    pause = 0.0001
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    return True
