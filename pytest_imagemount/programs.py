"""The one function that starts programs."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .errors import ProgramFailed

_log = logging.getLogger(__name__)

# Administration programs live in the sbin folders, which an ordinary user's PATH on Debian does not name.
_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

PACKAGES = {
    "blkid": "util-linux",
    "cryptsetup": "cryptsetup-bin",
    "debugfs": "e2fsprogs",
    "fusermount3": "fuse3",
    "kpartx": "kpartx",
    "linux.uml": "user-mode-linux",
    "lvm": "lvm2",
    "lz4": "lz4",
    "mcopy": "mtools",
    "mdadm": "mdadm",
    "mke2fs": "e2fsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.erofs": "erofs-utils",
    "mkfs.vfat": "dosfstools",
    "mkfs.xfs": "xfsprogs",
    "mksquashfs": "squashfs-tools",
    "mkswap": "util-linux",
    "mmd": "mtools",
    "qemu-img": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "qemu-storage-daemon": "qemu-system-common",
    "sfdisk": "fdisk",
    "xfs_db": "xfsprogs",
    "sudo": "sudo",
    "veritysetup": "cryptsetup-bin",
    "zstd": "zstd",
}
"""Program name to the Debian package that has it."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The small environment in which every program runs: English messages, no surprises from the user's."""
    kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "SOURCE_DATE_EPOCH") if name in os.environ}
    return {"PATH": _SEARCH_PATH, "LC_ALL": "C.UTF-8", **kept, **(extra or {})}


def find_program(name: str, root: Path | None = None) -> str | None:
    """Full path of program ``name``, or None; the sbin folders are searched too, below ``root`` if given."""
    import shutil

    folders = _SEARCH_PATH.split(":")
    return shutil.which(name, path=":".join(folders if root is None else [f"{root}{folder}" for folder in folders]))


def not_found(name: str) -> str:
    """What to do about the missing program ``name``."""
    package = PACKAGES.get(name)
    return f"install package {package}" if package else f"install the package that has {name}"


def run(
    argv: Sequence[str],
    *,
    stdin: bytes | IO[bytes] | None = None,
    extra_environment: Mapping[str, str] | None = None,
    timeout: float | None = 300,
    pass_fds: Sequence[int] = (),
    merge_stderr: bool = False,
) -> bytes:
    """Run ``argv`` (never a shell) and return its stdout.

    :param stdin: what it reads, or an open file that it reads
    :param timeout: seconds
    :param merge_stderr: its stderr is part of what is returned, for programs that end with status 0 when they failed
    :raises ProgramFailed: it is not installed, it failed, or it took too long
    """
    _log.debug("run %s", shlex.join(argv))
    try:
        done = subprocess.run(
            argv,
            input=stdin if isinstance(stdin, bytes) else None,
            stdin=None if isinstance(stdin, bytes) else stdin or subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if merge_stderr else subprocess.PIPE,
            env=environment(extra_environment),
            timeout=timeout,
            pass_fds=pass_fds,
            check=False,
        )
    except FileNotFoundError:
        raise _failed(argv, returncode=127, reason="not found", hint=not_found(argv[0])) from None
    except subprocess.TimeoutExpired as error:
        stderr = _tail(error.stderr or b"")
        reason = f"did not end within {timeout:.0f} s and was killed"
        raise _failed(argv, returncode=-signal.SIGKILL, reason=reason, stderr=stderr) from None
    if done.returncode:
        reason = f"exit status {done.returncode}"
        if done.returncode < 0:
            reason = f"ended by {signal.Signals(-done.returncode).name}"
        raise _failed(argv, returncode=done.returncode, reason=reason, stderr=_tail(done.stderr or done.stdout))
    return done.stdout


def stream(argv: Sequence[str], *, extra_environment: Mapping[str, str] | None = None) -> int:
    """Run ``argv`` with the caller's own stdout and stderr, for as long as it takes, and return its exit status.

    :raises ProgramFailed: it is not installed
    """
    _log.debug("run %s", shlex.join(argv))
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, env=environment(extra_environment), check=False)
    except FileNotFoundError:
        raise _failed(argv, returncode=127, reason="not found", hint=not_found(argv[0])) from None
    return done.returncode


def _failed(argv: Sequence[str], **facts: Any) -> ProgramFailed:
    # The report header asks this module for programs in every pytest run, and needs no error.
    from .errors import ProgramFailed

    return ProgramFailed(argv=list(argv), **facts)


def _tail(output: bytes) -> str:
    return output.decode("utf-8", "backslashreplace").strip()[-2000:]
