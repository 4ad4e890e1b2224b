"""Waiting for what others hold: asked again until a deadline, with a word to the user when it takes long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from .errors import DeviceTimeout, ImageBusy, is_ours

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__tracebackhide__ = is_ours
_SHORTEST, _LONGEST = 0.005, 0.02  # seconds between two questions
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
        self._start = time.monotonic()
        self._pause = _SHORTEST
        self._told = False

    def pause(self, what: str, holders: Sequence[str]) -> None:
        """Wait a little.

        :param what: ``device``, ``image`` or ``file system``
        :param holders: who has it, a line each
        :raises DeviceTimeout: no device became free in time
        :raises ImageBusy: the image, or its file system, did not
        """
        waited = time.monotonic() - self._start
        if waited >= self._timeout:
            if what == "device":
                raise DeviceTimeout(image=self._image, waited=waited, holders=holders)
            reason = f"still after {waited:.0f} s, by {'; '.join(holders) or 'somebody who cannot be seen from here'}"
            raise ImageBusy(image=self._image, reason=reason, hint=_HINTS[what])
        if waited >= _QUIET and not self._told:
            self._told = True
            self._tell(f"imagemount: {self._image} waits for {_THINGS[what]}; held by {'; '.join(holders) or 'others'}")
        time.sleep(min(self._pause, self._timeout - waited))
        self._pause = min(self._pause * 2, _LONGEST)
