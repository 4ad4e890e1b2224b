"""Images that the storage daemon has opened before, so that what was found then need not be asked again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..findings import stamp_of

if TYPE_CHECKING:
    from ..findings import Stamp

    Key = tuple[Stamp, str]

_MOST = 256


class OpenedBefore:
    """The sizes of images that were opened alone: qemu opened no other file with them.

    An image is the same while its :func:`~..findings.stamp_of` is. The key is to be asked for before it is opened, so
    that a change meanwhile counts.

    :param remembers: False: nothing is known again
    """

    def __init__(self, *, remembers: bool) -> None:
        self._remembers = remembers
        self._sizes: dict[Key, int] = {}

    def key(self, fd: int, format: str) -> Key | None:
        """What the image open at ``fd`` is known by; None where it cannot be known again."""
        stamp = stamp_of(fd) if self._remembers else None
        return None if stamp is None else (stamp, format)

    def size_of(self, key: Key | None) -> int | None:
        """Bytes of its virtual disk; None where it was not opened before."""
        return None if key is None else self._sizes.get(key)

    def note(self, key: Key | None, size: int) -> None:
        """It was opened, and its virtual disk has ``size`` bytes."""
        if key is None:
            return
        while len(self._sizes) >= _MOST:
            del self._sizes[next(iter(self._sizes))]
        self._sizes[key] = size
