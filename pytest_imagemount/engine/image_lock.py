"""The lock on an image: shared for those who read it, exclusive for the one who writes to it.

It is flock(2) on the image file itself: by device and inode, with no lock file to keep, dropped by the kernel with the
process that holds it, and the same convention by which systemd's tools lock images and block devices
(https://systemd.io/BLOCK_DEVICE_LOCKING). qemu's own locks are of another kind (fcntl) and do not meet these.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import ImageLocked


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

    :raises ImageLocked: others hold it in a way that excludes this use; their pids are in it
    """
    # A lock belongs to an open file, which descriptors share: one of its own, so that two mounts of one descriptor
    # have two locks.
    access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    own = os.open(f"/proc/self/fd/{fd}", access | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.flock(own, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        pids = holders(own)
        os.close(own)
        raise ImageLocked(image=image, exclusive=exclusive, pids=pids) from None
    except BaseException:
        os.close(own)
        raise
    return ImageLock(own)


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
