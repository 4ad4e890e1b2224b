"""Interrupts at chosen places: before every line of the package's own code, one after the other."""

from __future__ import annotations

import linecache
import os
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest_imagemount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

PACKAGE = Path(pytest_imagemount.__file__).parent


class Interruption:
    """``fired``: whether the line was reached; ``place``: which it was, as ``pending.py:80``."""

    def __init__(self, at: int, act: Callable[[], None], leave_out: frozenset[str]) -> None:
        self.place = ""
        self._left = at
        self._act = act
        self._leave_out = leave_out
        self._entered: set[tuple[int, int]] = set()

    @property
    def fired(self) -> bool:
        return self.place != ""

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        """As sys.settrace calls it."""
        path = Path(frame.f_code.co_filename)
        if PACKAGE not in path.parents or path.name in self._leave_out:
            return None
        if event == "call":
            self._entered = {(frame_id, line) for frame_id, line in self._entered if frame_id != id(frame)}
        elif event == "line" and not self.fired and not self._leaves_block(frame):
            self._left -= 1
            if self._left == 0:
                self.place = f"{path.name}:{frame.f_lineno}"
                self._act()
        return self.trace

    def _leaves_block(self, frame: FrameType) -> bool:
        """Whether this is the second event of a ``with`` line, for the call of ``__exit__``.

        Before that call CPython looks for no signal: an exception there, which would leave a lock locked, is none that
        can come.
        """
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip()
        if not line.startswith("with "):
            return False
        key = id(frame), frame.f_lineno
        leaves = key in self._entered
        self._entered.add(key)
        return leaves


def press_ctrl_c() -> None:
    """SIGINT, as the terminal sends it: deferred where it is deferred."""
    os.kill(os.getpid(), signal.SIGINT)


def raise_anyway() -> None:
    """An exception out of nowhere, as of a timeout's SIGALRM handler, which nothing defers."""
    raise KeyboardInterrupt("injected")


@contextmanager
def interrupted(at: int, act: Callable[[], None], *leave_out: str) -> Iterator[Interruption]:
    """Calls ``act`` before the ``at``-th line, from 1, that the block runs in the package; files may be left out."""
    interruption = Interruption(at, act, frozenset(leave_out))
    before = sys.gettrace()
    sys.settrace(interruption.trace)
    try:
        yield interruption
    finally:
        sys.settrace(before)
