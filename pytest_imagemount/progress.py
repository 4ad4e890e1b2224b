"""How far a long piece of work has come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .engine.text import human_size, printable

if TYPE_CHECKING:
    from collections.abc import Callable

_QUIET = 0.5  # seconds before a bar is drawn
_QUIET_LINES = 2.0  # seconds before a line is written
_REDRAW = 0.1  # seconds between two bars
_NEXT_LINE = 15.0  # seconds between two lines
_BAR = 24  # characters


class Progress:
    """The progress of ``work`` (``"unpacking disk.img.xz"``) over ``total`` bytes.

    Work that is soon done shows nothing.

    :param tell: shows the user a line
    :param draw: shows a line in the place of the one that it showed before, an empty one at the end; None where there
        is no terminal
    """

    def __init__(
        self, work: str, total: int, tell: Callable[[str], None], draw: Callable[[str], None] | None = None
    ) -> None:
        self._work, self._total = printable(work), max(total, 1)
        self._tell, self._draw = tell, draw
        self._start = time.monotonic()
        self._next = self._start + (_QUIET if draw else _QUIET_LINES)
        self._shown = False

    def at(self, done: int) -> None:
        """``done`` of the bytes are behind."""
        now = time.monotonic()
        if now < self._next:
            return
        self._shown = True
        if self._draw:
            self._next = now + _REDRAW
            self._draw(self._bar(done, now - self._start))
        else:
            self._next = now + _NEXT_LINE
            self._tell(f"imagemount: {self._work}: {self._percent(done)} % of {human_size(self._total)}")

    def end(self) -> None:
        """It is over, one way or the other."""
        if not self._shown:
            return
        if self._draw:
            self._draw("")
        else:
            self._tell(f"imagemount: {self._work}: over after {time.monotonic() - self._start:.0f} s")

    def _percent(self, done: int) -> int:
        return min(100 * done // self._total, 100)

    def _bar(self, done: int, seconds: float) -> str:
        percent = self._percent(done)
        full = _BAR * percent // 100
        left = seconds * (self._total - done) / done if done else 0.0
        times = f", {left:.0f} s left" if done and percent < 100 else ""
        bar = "#" * full + "-" * (_BAR - full)
        return f"imagemount: {self._work} [{bar}] {percent:3} % of {human_size(self._total)}{times}"
