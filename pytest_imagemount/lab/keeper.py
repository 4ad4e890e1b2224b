"""The process that holds one User-Mode Linux kernel, and ends all of it when asked or when its parent is gone.

The kernel is a group of processes: the kernel itself, its helpers, and one that it traces for each address space
inside. Killing the first alone leaves the others, and a traced one that was running then runs free on the machine. So a
process of its own holds them: it is the reaper of all their descendants, watches its parent, kills the whole group and
waits for every one. It also removes the private folder. It has a session of its own, where a terminal's Ctrl-C does
not come.

It takes one request, any byte or the end of its stdin: end now. It reports two lines on stdout: ``started PID`` and
``gone STATUS`` (the kernel's wait status).
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from pytest_imagemount.engine.syscalls import set_child_subreaper, set_parent_death_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CONSOLE = "console"
"""Name of the kernel's console log in the private folder."""


class Keeper:
    """One kernel, ``argv``, and its private ``folder``. ``line`` is the descriptor that the kernel inherits."""

    def __init__(self, folder: Path, parent: int, line: int, argv: Sequence[str]) -> None:
        self._folder = folder
        self._wakeup, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._note)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._asked = False
        set_child_subreaper()
        self._parent = _pidfd(parent)
        if os.getppid() != parent:
            self._asked = True
        # The kernel raises its core limit to the hard one, and its core would be as large as its memory.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with (folder / CONSOLE).open("ab") as console:
            self._kernel = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                cwd=folder,
                pass_fds=(line,),
                start_new_session=True,
                preexec_fn=lambda: set_parent_death_signal(signal.SIGKILL),
            )
        os.close(line)

    def _note(self, number: int, _frame: object) -> None:
        self._asked = self._asked or number in (signal.SIGTERM, signal.SIGHUP)

    def run(self) -> None:
        """Keep the kernel until it ends or shall end; then end all its processes and remove the folder."""
        _report(f"started {self._kernel.pid}")
        while not self._asked and not self._ended():
            self._wait()
        status = self._kill()
        _report(f"gone {status}")
        while not self._asked:
            self._wait()  # the parent reads the console first
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self, timeout: int | None = None) -> None:
        """Wait for a request, the parent's end, or a signal. ``timeout`` is in milliseconds."""
        poll = select.poll()
        for fd in (0, self._wakeup, self._parent):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        ready = dict(poll.poll(timeout))
        if self._wakeup in ready:
            os.read(self._wakeup, 4096)
        if 0 in ready or self._parent in ready:
            self._asked = True

    def _ended(self) -> bool:
        """Whether the kernel's first process has ended. It stays a zombie, so that its group stays its own."""
        return os.waitid(os.P_PID, self._kernel.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _kill(self) -> int:
        """Kill every process of the kernel and wait for all; the wait status of the first."""
        os.killpg(self._kernel.pid, signal.SIGKILL)
        status = 0
        poll = select.poll()
        poll.register(self._wakeup, select.POLLIN)
        while True:
            try:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._kernel.returncode = status
                return status
            if pid == self._kernel.pid:
                status = wait_status
            if not pid:
                for child in _children():  # one that left the group
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                if poll.poll(100):
                    os.read(self._wakeup, 4096)


def _children() -> list[int]:
    """Process ids of all children of this process, zombies too (proc_pid_stat(5))."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[1]) == os.getpid():
                    found.append(int(entry.name))
    return found


def _pidfd(pid: int) -> int:
    """A descriptor that becomes readable when ``pid`` ends, or -1: before Linux 5.3, stdin's end has to do."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return -1


def _report(text: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, text.encode() + b"\n")


def main() -> None:
    """``keeper FOLDER PARENT_PID LINE_FD KERNEL ARGUMENT…``"""
    folder, parent, line, *argv = sys.argv[1:]
    Keeper(Path(folder), int(parent), int(line), argv).run()
