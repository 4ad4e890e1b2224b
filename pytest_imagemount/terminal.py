"""Text for a terminal: colour, marks, sizes."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .engine.text import human_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self, TextIO


@dataclass(frozen=True, slots=True)
class Style:
    """How to write to one stream: colour only on a terminal and without NO_COLOR, marks as its encoding allows."""

    colour: bool
    unicode: bool

    @classmethod
    def of(cls, stream: TextIO) -> Self:
        encoding = (stream.encoding or "ascii").lower().replace("-", "")
        dumb = os.environ.get("TERM") == "dumb" or bool(os.environ.get("NO_COLOR"))
        return cls(colour=stream.isatty() and not dumb, unicode=encoding in ("utf8", "utf16", "utf32"))

    def bold(self, text: str) -> str:
        return self._paint("1", text)

    def dim(self, text: str) -> str:
        return self._paint("2", text)

    def good(self, text: str) -> str:
        return self._paint("32", text)

    def bad(self, text: str) -> str:
        return self._paint("31", text)

    def tint(self, index: int, text: str) -> str:
        """One of six colours, neighbours of which are easily told apart."""
        return self._paint(("34", "32", "33", "35", "36", "31")[index % 6], text)

    @property
    def yes(self) -> str:
        return self.good("✓" if self.unicode else "ok")

    @property
    def no(self) -> str:
        return self.bad("✗" if self.unicode else "--")

    @property
    def mark_width(self) -> int:
        """How many columns :attr:`yes` and :attr:`no` take."""
        return 1 if self.unicode else 2

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text


def exact_size(count: int) -> str:
    """A size in bytes, human and exact: ``64 MiB (67,108,864 bytes)``; below 1 KiB only the exact one."""
    exact = f"{count:,} byte{'' if count == 1 else 's'}"
    return exact if count < 1024 else f"{human_size(count)} ({exact})"


def drawer() -> Callable[[str], None] | None:
    """Shows, on the terminal that stderr is, a line in the place of the one before; None where stderr is none."""
    if sys.stderr is None or not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return None

    def draw(line: str) -> None:
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)

    return draw
