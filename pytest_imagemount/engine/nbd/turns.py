"""Whose turn it is: processes that wait for a device stand in a line, the longest waiting first.

A place in the line is a file in a folder, locked by the process that waits; the lock goes with the process, and whoever
meets a place without a lock removes it. The names sort by the time of arrival (CLOCK_MONOTONIC, one clock for the whole
machine). Whoever asks renews the file's mtime: a place that nobody has asked from for a while, as of a run that was
stopped by Ctrl-Z, is passed over until it does.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_numbers = itertools.count(1)
_PASSED_OVER = 5.0  # seconds; who waits asks twice a second at least


@dataclass(slots=True)
class Place:
    """A place in the line, until :meth:`leave` or the end of the process."""

    path: Path
    fd: int

    def leave(self) -> None:
        """Give the place up; twice is fine."""
        if self.fd >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self.fd)
            self.fd = -1


class Line:
    """The line in ``folder``, which is made when it is missing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)

    def join(self) -> Place:
        """A new place at the end of the line."""
        name = f"{time.monotonic_ns():020d}-{os.getpid()}-{next(_numbers)}"
        # Locked under another name before it is seen: a place without a lock would be taken for a dead one's.
        hidden = self._folder / f".{name}"
        fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            path = self._folder / name
            hidden.rename(path)
        except BaseException:
            os.close(fd)
            hidden.unlink(missing_ok=True)
            raise
        return Place(path, fd)

    def ahead(self, place: Place | None) -> int:
        """How many wait that came before ``place``; before anybody who comes now, where it is None."""
        if place is not None:
            os.utime(place.fd)
        older = [
            entry.path
            for entry in os.scandir(self._folder)
            if not entry.name.startswith(".") and (place is None or entry.name < place.path.name)
        ]
        return sum(_is_waiting(path) for path in older)


def _is_waiting(path: str) -> bool:
    """Whether a process holds that place and asks; one that nobody holds is removed."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        # In the future: the clock was set back since. Who asks still sets it right.
        return abs(time.time() - os.fstat(fd).st_mtime) < _PASSED_OVER
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108  (a name from scandir)
        return False
    finally:
        os.close(fd)
