"""The folders that are ours on a machine: mount points and sockets. Never below pytest's temp folders, which pytest
clears by removing whole trees."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import CapabilityMissing

_NAME = "pytest-imagemount"


def run_folder() -> Path:
    """The folder for mount points and sockets of this user, made with mode 0700 if it is not there.

    ``/run/pytest-imagemount`` for root; else ``$XDG_RUNTIME_DIR/pytest-imagemount``; else
    ``/tmp/pytest-imagemount-UID``.

    :raises CapabilityMissing: the folder exists and belongs to somebody else, or cannot be made
    """
    return _own(_candidate())


def _candidate() -> Path:
    uid = os.geteuid()
    if uid == 0 and os.access("/run", os.W_OK):
        return Path("/run") / _NAME
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if uid != 0 and runtime and os.access(runtime, os.W_OK):
        return Path(runtime) / _NAME
    return Path("/tmp") / f"{_NAME}-{uid}"


def _own(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise _unusable(folder, str(error)) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise _unusable(folder, "it is not a folder of this user's own")
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise _unusable(folder, "others may write in it")
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
