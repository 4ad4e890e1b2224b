"""What was found in images, remembered, so that nothing is read twice of an image that has not changed.

A file is the same while its device, inode, size, mtime and ctime are: nobody can set a ctime, so that neither a copy
into its place nor a file whose times are set back passes for it. File systems stamp with a coarse clock, in ticks of up
to some seconds: what was changed just now could be changed again under the same stamp, and is not remembered. Nor is
what is known of a block device, which has no such stamps, and of an image that is to be written to. (What is written
through a memory map is stamped only when it touches a page that has no unwritten change.)
"""

from __future__ import annotations

import os
import stat
import time
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .image import Image
    from .reader import Window
    from .superblock import Superblock
    from .tables.read import PartitionTable

_OLD_ENOUGH = 2.0
"""Seconds since the last change after which a further change bears another stamp."""
_MOST_IMAGES = 256
_NOTHING = object()

Stamp = tuple[int, int, int, int, int]


@dataclass(slots=True)
class Found:
    """What is known of the content of one image, as long as it is the same."""

    image: Image | None = None
    _table: object = _NOTHING
    _superblocks: dict[tuple[Window, bool], Superblock | None] = field(default_factory=dict)

    @property
    def knows_table(self) -> bool:
        """Whether :meth:`table` need not read."""
        return self._table is not _NOTHING

    def table(self, read: Callable[[], PartitionTable | None]) -> PartitionTable | None:
        """The partition table; ``read`` reads it where it is not known."""
        if self._table is _NOTHING:
            self._table = read()
        return self._table  # type: ignore[return-value]

    def superblock(
        self, window: Window, probe: Callable[[], Superblock | None], *, whole: bool = True
    ) -> Superblock | None:
        """The superblock in ``window`` of the virtual disk; ``probe`` reads it where it is not known.

        :param whole: ``probe`` sees all of the window, and so all that a superblock says
        """
        for key in ((window, True), (window, whole)):
            if key in self._superblocks:
                return self._superblocks[key]
        found = self._superblocks[window, whole] = probe()
        return found


class Findings:
    """What is known of the images that were used last."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[Stamp, str], Found] = OrderedDict()

    def of(self, image: Image, mode: str) -> Found:
        """What is known of ``image``, to be added to; it is kept for the next time where that is safe."""
        # What the files hold that it refers to is part of what it is.
        return Found() if image.layers else self._of(image.fd, image.format, mode)

    def identify(self, fd: int, format: str | None, mode: str, identify: Callable[[], Image], *, name: str) -> Image:
        """The image open at ``fd``, as ``identify`` finds; that is asked only where it is not known.

        :param format: that the caller insists on
        :param name: what the image is called now
        """
        found = self._of(fd, f"identified:{format}", mode)
        if found.image is None:
            image = identify()
            if not image.layers:
                found.image = image
            return image
        return replace(found.image, fd=fd, name=name)

    def _of(self, fd: int, kind: str, mode: str) -> Found:
        stamp = None if mode == "rw" else stamp_of(fd)
        if stamp is None:
            return Found()
        known = self._found.setdefault((stamp, kind), Found())
        self._found.move_to_end((stamp, kind))
        while len(self._found) > _MOST_IMAGES:
            self._found.popitem(last=False)
        return known


def stamp_of(fd: int) -> Stamp | None:
    """What changes with the file; None where that cannot be told."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or time.time() - status.st_ctime < _OLD_ENOUGH:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
