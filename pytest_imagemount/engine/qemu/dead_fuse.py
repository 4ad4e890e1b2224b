"""What a killed daemon leaves: FUSE mounts that nobody answers any more."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ...programs import run
from .. import syscalls
from ..mountinfo import mounts
from ..undo import wait_until

_TIMEOUT = 1.0


def unmount_dead(path: Path) -> None:
    """Unmount what a FUSE server that is gone left at ``path``. Nothing there is fine.

    The kernel keeps the mount of a dead server (every access answers ENOTCONN) until somebody unmounts it.

    :raises OSError: it is in use
    """
    if not _mounted(path):
        return
    if not wait_until(lambda: _unmounted(path), _TIMEOUT):
        raise OSError(errno.EBUSY, "the mount of a dead FUSE server is in use", str(path))


def _mounted(path: Path) -> bool:
    # Not of the path itself: everything that asks a dead file system answers ENOTCONN.
    real = Path(os.path.realpath(path.parent)) / path.name
    return any(mount.target == real for mount in mounts())


def _unmounted(path: Path) -> bool:
    try:
        syscalls.umount2(str(path))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        if error.errno == errno.EPERM:  # not root: the set-uid program that mounted it
            run(["fusermount3", "-u", str(path)])
        elif error.errno != errno.EINVAL:  # EINVAL: not a mount point any more
            raise
    return True
