"""A helper that outlives its test process: for what is busy still, and for mounts that are kept to be looked at."""

from __future__ import annotations

import select
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import TeardownError

if TYPE_CHECKING:
    import socket

    from .operations import Mounts

LINGER = 30.0
"""Seconds that a helper goes on trying to undo what is busy after its test process has died."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5
_LOOK_AGAIN = 1.0  # seconds; a device that is detached by hand sends no sign


def linger(mounts: Mounts, seconds: float = LINGER) -> list[str]:
    """Close again and again, until nothing is left or ``seconds`` have passed; what failed the last time.

    For the time after the test process's death, when nobody waits. What is left then is for the next run to reclaim.
    """
    end = time.monotonic() + seconds
    pause = _FIRST_PAUSE
    while (failures := mounts.close(min(end, time.monotonic() + 1.0))) and (left := end - time.monotonic()) > 0:
        time.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_PAUSE)
    return failures


def wait_for_end_of_kept(mounts: Mounts, stop: socket.socket) -> None:
    """Return when every kept mount was unmounted by hand, or when ``stop`` becomes readable.

    The kernel makes ``/proc/self/mountinfo`` ready with POLLPRI at each change of the table.
    """
    with Path("/proc/self/mountinfo").open("rb") as table:
        poll = select.poll()
        poll.register(table, select.POLLPRI)
        poll.register(stop, select.POLLIN)
        _drop_unmounted(mounts)
        while mounts.kept:
            if any(descriptor == stop.fileno() for descriptor, _ in poll.poll(_LOOK_AGAIN * 1000)):
                return
            _drop_unmounted(mounts)


def _drop_unmounted(mounts: Mounts) -> None:
    with suppress(TeardownError):  # tried again by the next look, and told by the last close
        mounts.drop_unmounted()
