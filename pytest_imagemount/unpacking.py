"""Compressed and split images made whole: once, into a file that is kept (see :mod:`.image_cache`).

The test process does it, with the user's own rights. What comes out is then an image like any other.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .compression import HEAD_SIZE, compression_of, unpack
from .errors import ImageUnreadable
from .split_images import other_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from .image_cache import Source

_QUIET = 2.0  # seconds of waiting before the user is told


@dataclass(frozen=True, slots=True)
class Unpacker:
    """Where images are unpacked to, and how.

    :param folder: for what is unpacked; None takes the user's cache folder
    :param limit: bytes that one image may have, and that all that are kept may take on the disk
    :param tell: shows the user a line
    :param draw: shows a line in the place of the one before; None where there is no terminal
    """

    folder: Path | None
    limit: int
    tell: Callable[[str], None]
    draw: Callable[[str], None] | None = None

    def whole(self, fd: int, path: Path, name: str, mode: str) -> int | None:
        """A descriptor of the whole image, the caller's to close; None where the file open at ``fd`` is it.

        :param path: of the file that is open at ``fd``
        :param name: what errors call the image
        :raises ImageUnreadable: it is to be written to
        :raises ImageInvalid: a part is missing, or the compressed data is corrupt
        :raises UnpackFailed: it is too large, for the limit or for the disk
        :raises CapabilityMissing: the program that it takes is not installed, or no folder can be written
        """
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        others = other_parts(path, name)
        kind = _compression(fd, name)
        if kind is None and not others:
            return None
        if mode == "rw":
            reason = f"it is compressed ({kind})" if kind else f"it is split into {len(others) + 1} parts"
            hint = "use mode='overlay', or make a whole image of it first"
            raise ImageUnreadable(image=name, mode=mode, reason=reason, hint=hint)
        with ExitStack() as closing:
            sources = [_opened(fd, path, closing)]
            for part in others:
                sources.append(_opened(_open_part(part, name, closing), part, closing))
            return self._make(sources, name, kind)

    def _make(self, sources: Sequence[Source], name: str, kind: str | None) -> int:
        from .image_cache import ImageCache, cache_folder

        since = time.monotonic()
        told = False

        def wait(pids: list[int]) -> None:
            nonlocal told
            if not told and time.monotonic() - since > _QUIET:
                told = True
                self.tell(
                    f"imagemount: {name} is being unpacked by pid {', '.join(map(str, pids)) or 'unknown'}; waiting"
                )

        def make(fd: int) -> None:
            if kind is None:
                self._join(sources, fd, name)
            elif len(sources) == 1:
                self._unpack(sources[0].fd, fd, name, kind)
            else:
                joined = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
                try:
                    self._join(sources, joined, name)
                    self._unpack(joined, fd, name, kind)
                finally:
                    os.close(joined)

        folder = cache_folder(self.folder)
        return ImageCache(folder, self.limit).open(sources, name, make, wait)

    def _join(self, sources: Sequence[Source], target: int, name: str) -> None:
        from .progress import Progress
        from .sparse_file import SparseFile

        sizes = [os.fstat(source.fd).st_size for source in sources]
        file = SparseFile(target, limit=self.limit, image=name)
        progress = Progress(f"joining the parts of {name}", sum(sizes), self.tell, self.draw)
        try:
            for source, size in zip(sources, sizes, strict=True):
                file.copy(source.fd, size, progress.at)
            file.finish()
        finally:
            progress.end()

    def _unpack(self, source: int, target: int, name: str, kind: str) -> None:
        from .progress import Progress
        from .sparse_file import SparseFile

        os.lseek(source, 0, os.SEEK_SET)
        file = SparseFile(target, limit=self.limit, image=name)
        progress = Progress(f"unpacking {name}", os.fstat(source).st_size, self.tell, self.draw)
        try:
            for piece in unpack(source, kind, name):
                file.write(piece)
                progress.at(os.lseek(source, 0, os.SEEK_CUR))  # a program that reads it moves it too
            file.finish()
        finally:
            progress.end()


def _compression(fd: int, name: str) -> str | None:
    """What the file is compressed with; None for an image of a format that starts like that, as some dmg do."""
    kind = compression_of(os.pread(fd, HEAD_SIZE, 0))
    if kind is None:
        return None
    from .engine.formats.content import Content
    from .engine.formats.known import claimed_by

    return kind if claimed_by(Content.open_at(fd, name, os.fstat(fd).st_size)) is None else None


def _open_part(path: Path, name: str, closing: ExitStack) -> int:
    from .image_files import open_image

    fd = open_image(path, name, "ro")
    closing.callback(os.close, fd)
    return fd


def _opened(fd: int, path: Path, closing: ExitStack) -> Source:
    """The file by a descriptor with an offset of its own."""
    from .image_cache import Source

    own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    closing.callback(os.close, own)
    return Source(path, own)
