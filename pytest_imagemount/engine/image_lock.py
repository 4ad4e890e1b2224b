"""The lock on an image: shared for those who read it, exclusive for the one who writes to it.

It is flock(2) on the image file itself: by device and inode, with no lock file to keep, dropped by the kernel with the
process that holds it, and the same convention by which systemd's tools lock images and block devices
(https://systemd.io/BLOCK_DEVICE_LOCKING). qemu's own locks are of another kind (fcntl) and do not meet these.

Readers who come and go would never let a writer in. So a writer who is refused announces itself, and readers who come
then wait behind it.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageLocked

# struct flock of fcntl(2), of 64 bits: type, whence, start, length, pid. The byte is far behind those that qemu locks.
_FLOCK = struct.Struct("hhqqi0q")
_ANNOUNCED_AT = 1 << 62
TURN = 2.0
"""Seconds, by the machine's clock, in which readers wait behind a writer, and in which they pass it, by turns: the
writer may wait for one who needs the image a second time before letting go of it."""


@dataclass(slots=True)
class ImageLock:
    """A held lock."""

    fd: int

    def release(self) -> None:
        """Let go of it; twice is fine.

        :raises OSError: the file's server is gone, or could not keep what was written; it is let go of all the same
        """
        if self.fd >= 0:
            descriptor, self.fd = self.fd, -1  # close(2) closes it whatever it answers
            os.close(descriptor)


def lock_image(fd: int, image: str, *, exclusive: bool) -> ImageLock:
    """Lock the image open at ``fd``; no waiting.

    A writer who is refused stays announced as long as ``fd``, or a copy of it in another process, is open.

    :raises ImageLocked: others hold it in a way that excludes this use, their pids are in it; or a writer comes first
    """
    if not exclusive and _comes_after_writer(fd):
        raise ImageLocked(image=image, exclusive=False, pids=holders(fd), writer_waits=True)
    # A lock belongs to an open file, which descriptors share: one of its own, so that two mounts of one descriptor
    # have two locks.
    access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    own = os.open(f"/proc/self/fd/{fd}", access | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.flock(own, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        pids = holders(own)
        os.close(own)
        if exclusive:
            _announce(fd, fcntl.F_WRLCK if _is_turn_of_writers() else fcntl.F_UNLCK)
        raise ImageLocked(image=image, exclusive=exclusive, pids=pids) from None
    except BaseException:
        os.close(own)
        raise
    if exclusive:
        _announce(fd, fcntl.F_UNLCK)
    return ImageLock(own)


def _is_turn_of_writers() -> bool:
    return time.monotonic() % (2 * TURN) < TURN


def _announce(fd: int, kind: int) -> None:
    """``F_WRLCK``: say by a lock of the open file description (fcntl(2)) that ``fd`` waits to write; ``F_UNLCK``: not
    any more."""
    with suppress(OSError):  # another writer is announced, or the file system has no such locks
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, _ANNOUNCED_AT, 1, 0))


def _comes_after_writer(fd: int) -> bool:
    """Whether another open file description than that of ``fd`` is announced."""
    question = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, _ANNOUNCED_AT, 1, 0)
    with suppress(OSError):  # the file system has no such locks
        kind, *_ = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, question))
        return bool(kind != fcntl.F_UNLCK)
    return False


def holders(fd: int, locks: str | None = None) -> list[int]:
    """The pids that hold a flock(2) on the file open at ``fd``, as /proc/locks tells (proc_locks(5))."""
    status = os.fstat(fd)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    text = Path("/proc/locks").read_text() if locks is None else locks
    found = []
    for line in text.splitlines():
        fields = line.split()
        # A line with "->" is of one who waits.
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == place:
            found.append(int(fields[4]))
    return sorted(set(found))
