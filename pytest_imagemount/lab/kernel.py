"""Start User-Mode Linux, hold the line to it, and end it."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest_imagemount

from .. import programs
from ..capabilities import require
from ..errors import LabFailed
from .keeper import CONSOLE

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger(__name__)

PACKAGE_ROOT = Path(pytest_imagemount.__path__[0]).parent
"""The folder from which Python imports this package."""

_PROGRAM = "linux.uml"
_STOP_TIMEOUT = 30.0  # seconds; the machine may have gigabytes of memory to take back
_TAIL = 20  # lines
_PANIC = "Kernel panic"
# The kernel's control socket lies in the private folder, and a socket's path has 108 bytes.
_LONGEST_FOLDER = 60
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/_-.+")


class Kernel:
    """A running kernel: ``line`` is the socket to its first process, ``status_fd`` readable when the keeper speaks."""

    def __init__(self, folder: Path, keeper: subprocess.Popen[bytes], line: socket.socket) -> None:
        self.line = line
        self._folder = folder
        self._keeper = keeper
        self._killed = False
        self._heard = b""
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        self._requests, self._reports = keeper.stdin, keeper.stdout

    @property
    def status_fd(self) -> int:
        return self._reports.fileno()

    def listen(self) -> bool:
        """Take what the keeper says; whether the kernel has ended, and all its processes with it."""
        data = os.read(self.status_fd, 4096)
        self._heard += data
        if not data and self._said("gone") is None:
            self._kill()
        return not data or self._said("gone") is not None

    def _said(self, word: str) -> int | None:
        """The number that the keeper said with ``word``, or None if it has not said that."""
        lines = (line.split() for line in self._heard.decode().splitlines(keepends=True) if line.endswith("\n"))
        return next((int(number) for said, number in lines if said == word), None)

    def _kill(self) -> None:
        """The keeper was killed, and what it kept is not: do its work."""
        pid = self._said("started")
        if pid and not self._killed:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._killed = True

    def failure(self, reason: str, hint: str) -> LabFailed:
        """The error for ``reason``, with the console's end; the console log is kept, outside the private folder."""
        with contextlib.suppress(OSError):
            log = (self._folder / CONSOLE).read_bytes()
            kept, name = tempfile.mkstemp(prefix="imagemount-lab-console-", suffix=".log")
            with os.fdopen(kept, "wb") as file:
                file.write(log)
            return LabFailed(reason=reason, hint=hint, console=name, output=console_end(log))
        return LabFailed(reason=reason, hint=hint)

    def stop(self) -> None:
        """End the kernel at once, all its processes, and the private folder. Returns when they are gone."""
        self.line.close()
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(b"stop\n")
            self._requests.flush()
        try:
            self._keeper.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        while _readable(self.status_fd) and not self.listen():
            pass
        if self._said("gone") is None:
            self._kill()
            shutil.rmtree(self._folder, ignore_errors=True)
        for pipe in (self._requests, self._reports):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextlib.contextmanager
def running_kernel(memory: int) -> Iterator[Kernel]:
    """A kernel with ``memory`` bytes, booting; its first process will speak on the line.

    :raises CapabilityMissing: User-Mode Linux is not installed, or does not run on this machine
    :raises LabFailed: there is no room for it
    """
    require("lab")
    argv = [programs.find_program(_PROGRAM) or _PROGRAM]
    memory_place = memory_folder(memory)
    folder = Path(tempfile.mkdtemp(prefix="imagemount-lab-", dir=_private_parent()))
    with contextlib.ExitStack() as undo:
        undo.callback(shutil.rmtree, folder, ignore_errors=True)
        line, theirs = socket.socketpair()
        undo.enter_context(line)
        with theirs:
            argv += _arguments(folder, memory, theirs.fileno())
            keeper = _start_keeper(folder, memory_place, theirs.fileno(), argv)
        undo.pop_all()
    line.setblocking(False)
    kernel = Kernel(folder, keeper, line)
    try:
        yield kernel
    finally:
        kernel.stop()


def memory_folder(memory: int) -> str:
    """The folder for the kernel's memory, a file without a name that it maps, code included.

    /dev/shm where it is large enough and may be executed from; a container's often is neither, and a kernel whose
    memory file finds no room dies of SIGBUS.
    """
    folders = ("/dev/shm", tempfile.gettempdir(), "/var/tmp", "/tmp")
    troubles = []
    for folder in folders:
        try:
            facts = os.statvfs(folder)
        except OSError as error:
            troubles.append(f"{folder}: {error.strerror}")
            continue
        if facts.f_flag & os.ST_NOEXEC:
            troubles.append(f"{folder}: mounted noexec")
        elif not os.access(folder, os.W_OK | os.X_OK):
            troubles.append(f"{folder}: not writable")
        elif (free := facts.f_bavail * facts.f_frsize) < memory:
            troubles.append(f"{folder}: {free >> 20} MiB free")
        else:
            return folder
    raise LabFailed(
        reason=f"no folder can hold its memory, {memory >> 20} MiB ({', '.join(dict.fromkeys(troubles))})",
        hint="set TMPDIR to a folder with room, or give less with --memory",
    )


def console_end(log: bytes) -> str:
    """The lines of a console log that say why the kernel ended: the last ones, or those at a panic."""
    lines = log.decode("utf-8", "backslashreplace").strip().splitlines()
    panic = next((number for number, line in enumerate(lines) if _PANIC in line), None)
    start = len(lines) if panic is None else panic + _TAIL // 4
    return "\n".join(lines[max(0, start - _TAIL) : start])


def guest_command() -> list[str]:
    """The command line of the lab's first process, and of the loader that the kernel calls for modules."""
    return _python("pytest_imagemount.lab.guest.init", "run")


def _python(module: str, function: str) -> list[str]:
    """Call ``function`` of ``module`` of this package, with nothing of the user's settings or site packages."""
    code = f"import sys; sys.path.append({str(PACKAGE_ROOT)!r}); from {module} import {function}; {function}()"
    return [sys.executable, "-I", "-S", "-B", "-c", code]


def _private_parent() -> str:
    """A folder for the private folder whose path the kernel's command line and a socket can hold."""
    for folder in (tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"):
        if len(folder) <= _LONGEST_FOLDER and _SAFE.issuperset(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise LabFailed(reason="there is no writable folder for temporary files", hint="make /tmp writable")


def _arguments(folder: Path, memory: int, line: int) -> list[str]:
    """The kernel's command line."""
    init = folder / "init"
    init.write_text(f"#!/bin/sh\nexec {shlex.join(guest_command())}\n", "utf-8", "surrogateescape")
    init.chmod(0o700)
    return [
        f"mem={memory >> 20}M",
        "rootfstype=hostfs",
        "rootflags=/",
        "ro",
        f"init={init}",
        # Kernel messages and what the first process prints go to stdout, a log; the command's streams take the line.
        "con=null",
        "con0=null,fd:1",
        "ssl=null",
        f"ssl0=fd:{line}",
        f"uml_dir={folder}",
        "umid=lab",
    ]


def _start_keeper(folder: Path, memory: str, line: int, argv: list[str]) -> subprocess.Popen[bytes]:
    keeper = [*_python("pytest_imagemount.lab.keeper", "main"), str(folder), str(os.getpid()), str(line), *argv]
    _log.debug("start %s", shlex.join(argv))
    with (folder / CONSOLE).open("ab") as console:
        return subprocess.Popen(
            keeper,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=console,
            cwd="/",
            env=programs.environment({"TMPDIR": memory}),
            pass_fds=(line,),
            start_new_session=True,
        )


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
