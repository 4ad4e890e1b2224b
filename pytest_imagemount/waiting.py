"""Waiting for what others hold: asked again until a deadline, with a word to the user when it takes long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .errors import DeviceTimeout, ImageBusy, in_line, is_ours

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__tracebackhide__ = is_ours
_SHORTEST, _LONGEST = 0.005, 0.02  # seconds between two questions
# Each question takes processor time from those who are waited for: under a millisecond, and 4 ms in the lab, where six
# who asked all the time doubled every wait. So it takes a tenth of the time, and less of those who stand further back.
_SHARE = 10
_LONGEST_A_PLACE, _LONGEST_OF_ALL = 0.06, 0.5  # seconds: of the first in line, of anybody
_QUIET = 2.0  # seconds before the user is told
_THINGS = {
    "device": "an NBD device",
    "image": "the image",
    "file system": "its turn: this kernel mounts one copy of a btrfs at a time",
}
_HINTS = {
    "image": "mode='rw' needs an image alone: mount a copy, use mode='overlay', or raise --imagemount-timeout",
    "file system": "give the copy a UUID of its own with `btrfstune -u`, or raise --imagemount-timeout",
}


class Wait:
    """One wait for ``image``, of at most ``timeout`` seconds; ``tell`` gets the line for the user."""

    def __init__(self, image: str, timeout: float, tell: Callable[[str], None]) -> None:
        self._image, self._timeout, self._tell = image, timeout, tell
        self._start = self._asked = time.monotonic()
        self._pause = _SHORTEST
        self._told = False

    def pause(self, what: str, holders: Sequence[str], ahead: int = 0) -> None:
        """Wait a little.

        :param what: ``device``, ``image`` or ``file system``
        :param holders: who has it, a line each
        :param ahead: how many stand in line before this one
        :raises DeviceTimeout: no device became free in time
        :raises ImageBusy: the image, or its file system, did not
        """
        now = time.monotonic()
        waited, question = now - self._start, now - self._asked
        if waited >= self._timeout:
            if what == "device":
                raise DeviceTimeout(image=self._image, waited=waited, holders=holders, ahead=ahead)
            reason = f"still after {waited:.0f} s, by {'; '.join(holders) or 'somebody who cannot be seen from here'}"
            raise ImageBusy(image=self._image, reason=reason, hint=_HINTS[what])
        if waited >= _QUIET and not self._told:
            self._told = True
            who = "; ".join(holders) or "others"
            self._tell(f"imagemount: {self._image} waits for {_THINGS[what]}{in_line(ahead)}; held by {who}")
        sparing = min(min(_SHARE * question, _LONGEST_A_PLACE) * (1 + ahead), _LONGEST_OF_ALL)
        time.sleep(min(max(self._pause, sparing), self._timeout - waited))
        self._pause = min(self._pause * 2, _LONGEST)
        self._asked = time.monotonic()
