"""A file that is written from start to end, with holes where there are zeros, and that leaves room on its disk."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .engine.text import human_size
from .errors import UnpackFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BLOCK = 4096
_BATCH = 1 << 20
_ZEROS = bytes(_BATCH)
_LOOK_EVERY = 64 << 20  # bytes written between two looks at what room is left, fewer on a small disk
_RESERVE = 1 << 30
_RESERVE_PART = 20  # one twentieth of a disk, where that is less than the reserve
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CANNOT_COPY = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EPERM)


class SparseFile:
    """Writes to the empty file open at ``fd`` (not owned).

    A gibibyte, or a twentieth of the disk if that is less, is left free: others write there too.

    :param limit: bytes that the file may have
    :param image: what errors call it
    """

    def __init__(self, fd: int, *, limit: int, image: str) -> None:
        self._fd, self._limit, self._image = fd, limit, image
        self._end = 0  # of what is written, holes included
        self._rest = bytearray()  # less than a batch
        self._unlooked = self._look_every = _LOOK_EVERY

    def write(self, piece: bytes) -> None:
        """Append ``piece``.

        :raises UnpackFailed: the file would be longer than it may, or the disk too full
        """
        self._require_within(self._end + len(self._rest) + len(piece))
        self._rest += piece
        while len(self._rest) >= _BATCH:
            self._put(bytes(self._rest[:_BATCH]))
            del self._rest[:_BATCH]

    def copy(self, source: int, size: int, done: Callable[[int], None]) -> None:
        """Append the first ``size`` bytes of the file open at ``source``: by reference where the file system can.

        :param done: is told, now and then, how long the file is
        :raises UnpackFailed: as :meth:`write`
        """
        self._require_within(self._end + len(self._rest) + size)
        self._flush()
        start, position = self._end, 0
        while position < size:
            try:
                position = os.lseek(source, position, os.SEEK_DATA)
                end = min(os.lseek(source, position, os.SEEK_HOLE), size)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole until the end
                    break
                raise
            while position < end:
                copied = self._copy_some(source, position, start + position, min(end - position, _LOOK_EVERY))
                if not copied:
                    break
                position += copied
                done(start + position)
        self._end = start + size

    def finish(self) -> int:
        """Write what is left, and return the file's length in bytes."""
        self._flush()
        with self._told_when_full():
            os.ftruncate(self._fd, self._end)
        return self._end

    def _flush(self) -> None:
        self._put(bytes(self._rest))
        self._rest.clear()

    def _put(self, data: bytes) -> None:
        """Write a batch: the runs of blocks that are not all zeros."""
        if data != _ZEROS[: len(data)]:
            start = None
            for at in range(0, len(data), _BLOCK):
                block = data[at : at + _BLOCK]
                if block == _ZEROS[: len(block)]:
                    if start is not None:
                        self._write_at(data[start:at], self._end + start)
                    start = None
                elif start is None:
                    start = at
            if start is not None:
                self._write_at(data[start:], self._end + start)
        self._end += len(data)

    def _write_at(self, data: bytes, offset: int) -> None:
        self._require_room(len(data))
        view = memoryview(data)
        with self._told_when_full():
            while view:
                written = os.pwrite(self._fd, view, offset)
                view, offset = view[written:], offset + written

    def _copy_some(self, source: int, start: int, target: int, size: int) -> int:
        self._require_room(size)
        with self._told_when_full():
            try:
                if copied := os.copy_file_range(source, self._fd, size, start, target):
                    return copied  # a few kernels and file systems say 0 where there is more
            except OSError as error:
                if error.errno not in _CANNOT_COPY:
                    raise
            return os.pwrite(self._fd, os.pread(source, min(size, _BATCH), start), target)

    def _require_within(self, size: int) -> None:
        if size > self._limit:
            reason = f"it would take more than {human_size(self._limit)}, and no more is allowed"
            hint = "raise --imagemount-unpack-limit if that is what it is to have"
            raise UnpackFailed(image=self._image, reason=reason, hint=hint)

    def _require_room(self, size: int) -> None:
        self._unlooked += size
        if self._unlooked < self._look_every:
            return
        self._unlooked = 0
        disk = os.fstatvfs(self._fd)
        reserve = min(_RESERVE, disk.f_blocks * disk.f_frsize // _RESERVE_PART)
        self._look_every = min(_LOOK_EVERY, reserve) or _LOOK_EVERY
        # A file system in memory may have no size of its own.
        if disk.f_blocks and disk.f_bavail * disk.f_frsize < reserve + max(self._look_every, size):
            raise self._full(f"less than {human_size(reserve)} would be left free")

    @contextmanager
    def _told_when_full(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise self._full(os.strerror(error.errno)) from None

    def _full(self, reason: str) -> UnpackFailed:
        folder = os.path.dirname(os.readlink(f"/proc/self/fd/{self._fd}"))  # noqa: PTH115, PTH120  (of a descriptor)
        hint = "make room there, or name another folder with --imagemount-cache"
        return UnpackFailed(image=self._image, reason=f"no room for it in {folder}: {reason}", hint=hint)
