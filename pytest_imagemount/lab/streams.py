"""The caller's standard streams, and the terminal that some of them may be."""

from __future__ import annotations

import os
import termios
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Streams:
    """Descriptors of stdin, stdout and stderr, and which of the three the command shall see as a terminal."""

    stdin: int
    stdout: int
    stderr: int
    terminals: tuple[bool, bool, bool]

    @classmethod
    def of(cls, stdin: int, stdout: int, stderr: int) -> Self:
        terminals = is_foreground(stdin), is_terminal(stdout), is_terminal(stderr)
        return cls(stdin, stdout, stderr, terminals)

    @property
    def terminal(self) -> int:
        """The descriptor that shows what the command prints on its terminal, or -1."""
        stdin, stdout, stderr = self.terminals
        if stdout:
            return self.stdout
        return self.stderr if stderr else self.stdin if stdin else -1

    def size(self) -> tuple[int, int]:
        """Rows and columns; zeros where no stream is a terminal."""
        if self.terminal < 0:
            return 0, 0
        columns, rows = os.get_terminal_size(self.terminal)
        return rows, columns


class RawInput:
    """Passes every key typed at terminal ``fd`` on, Ctrl-C included, until :meth:`restore`.

    What is printed is treated as ever, since other programs (the rest of a pipeline) print there too.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._before = termios.tcgetattr(fd)
        settings = termios.tcgetattr(fd)
        settings[0] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR | termios.ISTRIP | termios.IXON | termios.BRKINT)
        settings[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG | termios.IEXTEN)
        settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
        termios.tcsetattr(fd, termios.TCSADRAIN, settings)

    def restore(self) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def is_foreground(fd: int) -> bool:
    """Whether ``fd`` is a terminal that this process may read: a job in the background would be stopped."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
