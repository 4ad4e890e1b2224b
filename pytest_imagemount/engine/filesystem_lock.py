"""The lock on a file system of which a kernel mounts only one copy at a time.

btrfs finds a mounted file system by its UUID: before Linux 6.7 (``temp_fsid``) a second copy of it, or the same image
on a second device, is refused with EEXIST. There the mounts of one UUID take turns.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ..errors import FilesystemLocked
from .folders import lock_folder
from .image_lock import ImageLock, holders

_COPES_WITH_COPIES = Path("/sys/fs/btrfs/features/temp_fsid")


def needs_turns(fstype: str) -> bool:
    """Whether this kernel mounts a file system of that type, by its UUID, only once."""
    return fstype == "btrfs" and not _COPES_WITH_COPIES.exists()


def lock_filesystem(fstype: str, uuid: str, image: str) -> ImageLock:
    """Lock the file system ``uuid`` against every other mount of ours on this machine; no waiting.

    :raises FilesystemLocked: others have it mounted; their pids are in it
    """
    path = lock_folder() / f"{fstype}-{uuid}.lock"
    lock = ImageLock(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    try:
        fcntl.flock(lock.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pids = holders(lock.fd)
        lock.release()
        raise FilesystemLocked(image=image, fstype=fstype, uuid=uuid, pids=pids) from None
    except BaseException:
        lock.release()
        raise
    return lock
