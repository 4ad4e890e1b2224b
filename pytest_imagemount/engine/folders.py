"""The folders that are ours on a machine: mount points and sockets. Never below pytest's temp folders, which pytest
clears by removing whole trees.

``/run/pytest-imagemount`` belongs to root and is not to be listed by others (0711). In it each user has a folder of
the name of the user id, which nobody else may enter (0700): so nobody else reads an image through its mount point.
In that, each process that mounts has a folder of its own (:mod:`.held_folder`).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import CapabilityMissing

_NAME = "pytest-imagemount"


def base_folder() -> Path:
    """Where root has the folders of all users; it may not be there yet."""
    return Path("/run") / _NAME if os.access("/run", os.W_OK) or os.geteuid() != 0 else Path("/tmp") / f"{_NAME}-root"


def run_folder() -> Path:
    """The folder of the calling user, for sockets and mount points, made with mode 0700 if it is not there.

    ``/run/pytest-imagemount/0`` for root; else ``$XDG_RUNTIME_DIR/pytest-imagemount``; else
    ``/tmp/pytest-imagemount-UID``.

    :raises CapabilityMissing: the folder exists and belongs to somebody else, or cannot be made
    """
    uid = os.geteuid()
    if uid == 0:
        return served_folder(0)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.access(runtime, os.W_OK):
        return _own(Path(runtime) / _NAME)
    return _own(Path("/tmp") / f"{_NAME}-{uid}")


def served_folder(uid: int) -> Path:
    """The folder in which a process that mounts for user ``uid`` makes its own.

    For root that is ``/run/pytest-imagemount/UID``, which is given to the user; another user has only
    :func:`run_folder`.

    :raises CapabilityMissing: the folder exists and belongs to somebody else, or cannot be made
    """
    if os.geteuid() != 0:
        return run_folder()
    base = _own(base_folder(), mode=0o711)
    folder = base / str(uid)
    # Only root can make or rename anything in the base, so what is there was made by us.
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        os.chown(folder, uid, -1, follow_symlinks=False)
    except OSError as error:
        raise _unusable(folder, str(error)) from None
    return _own(folder, owner=uid)


def _own(folder: Path, *, mode: int = 0o700, owner: int | None = None) -> Path:
    """``folder``, made with ``mode`` when it is not there, that belongs to ``owner`` (None: the calling user)."""
    try:
        folder.mkdir(mode=mode, exist_ok=True)
        status = folder.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != (os.geteuid() if owner is None else owner):
            raise _unusable(folder, "it is not a folder of this user's own")
        if stat.S_IMODE(status.st_mode) & 0o022:
            raise _unusable(folder, "others may write in it")
        if mode & 0o077 and stat.S_IMODE(status.st_mode) != mode:  # made under a strict umask
            folder.chmod(mode)
    except OSError as error:
        raise _unusable(folder, str(error)) from None
    return folder


def _unusable(folder: Path, reason: str) -> CapabilityMissing:
    return CapabilityMissing(capability="run folder", reason=f"{folder}: {reason}", hint="remove it, or set it right")


def lock_folder() -> Path:
    """The folder for lock files, which every process of this user on the machine must find alike; made if missing.

    ``/run/lock/pytest-imagemount`` for root; else ``$XDG_RUNTIME_DIR/pytest-imagemount-lock``; else
    ``/tmp/pytest-imagemount-lock-UID``. Not ``$TMPDIR``, which differs between runs that share the devices.

    :raises CapabilityMissing: the folder exists and belongs to somebody else, or cannot be made
    """
    uid = os.geteuid()
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if uid == 0 and os.access("/run", os.W_OK):
        shared = Path("/run/lock")
        shared.mkdir(exist_ok=True)
        return _own(shared / _NAME)
    if uid != 0 and runtime and os.access(runtime, os.W_OK):
        return _own(Path(runtime) / f"{_NAME}-lock")
    return _own(Path("/tmp") / f"{_NAME}-lock-{uid}")
