"""A kernel of our own: run a command under User-Mode Linux, with NBD, device mapper and loop devices, without root.

The guest imports this package, where each module that Python loads costs some 10 ms: nothing is imported before use.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TIMED_OUT = 124
"""Exit status of a lab whose time was up: the command and its kernel were killed."""
FAILED = 125
"""Exit status of ``imagemount lab`` where the lab itself failed; :func:`run_in_lab` raises ``LabFailed`` then."""

MODULES = ("loop", "fuse", "dm-mod")
"""Modules loaded at start, besides nbd: the kernel loads those that it knows by a file system's or target's name."""


def run_in_lab(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    memory: str = "2G",
    timeout: float | None = None,
    read_write: Sequence[Path] = (),
    read_only: Sequence[Path] = (),
    nbds_max: int = 16,
    modules: Sequence[str] = MODULES,
    stdin: int = 0,
    stdout: int = 1,
    stderr: int = 2,
) -> int:
    """Run ``command`` as root of a User-Mode Linux kernel and return its exit status.

    The kernel sees the machine's own files, read-only, with empty scratch folders at /tmp, /run, /var/tmp and
    /dev/shm. It does there what the calling user may do, and no more. One processor, no network but loopback.

    :param cwd: folder in which the command runs, writable; the current one if not given
    :param environment: the command's variables; the caller's own if not given
    :param memory: of the lab, such as ``512M``; the machine gives it as it is touched
    :param timeout: seconds for everything, start included
    :param read_write: more folders that the command may write to
    :param read_only: folders that a scratch folder would hide and the command needs
    :param nbds_max: number of NBD devices
    :param modules: kernel modules to load besides nbd, each a name, then parameters after blanks
    :param stdin: descriptor for the command's stdin; a terminal makes the lab interactive
    :param stdout: descriptor for the command's stdout; it is a terminal inside if it is one here
    :param stderr: the same for stderr
    :returns: the command's exit status; 128 + N if signal N ended it; 127 not found, 126 not executable;
        ``TIMED_OUT`` if the time was up
    :raises CapabilityMissing: User-Mode Linux is not installed, or does not exist for this machine
    :raises RequestInvalid: an argument cannot be used
    :raises LabFailed: the kernel crashed or did not come up; names the console log
    """
    import os
    from pathlib import Path

    from .run import Request, run

    request = Request(
        command=tuple(command),
        cwd=Path.cwd() if cwd is None else cwd,
        environment=os.environ if environment is None else environment,
        memory=memory,
        timeout=timeout,
        read_write=tuple(read_write),
        read_only=tuple(read_only),
        modules=(f"nbd nbds_max={nbds_max} max_part=0", *modules),
        streams=(stdin, stdout, stderr),
    )
    return run(request)
