"""The process of the storage daemon: started so that it cannot outlive us, its last words kept."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

from ...errors import CapabilityMissing
from ...programs import environment, find_program, not_found
from .. import syscalls
from ..undo import patience

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_PROGRAM = "qemu-storage-daemon"
_KEPT_OUTPUT = 4096  # bytes


class DaemonProcess:
    """A running ``qemu-storage-daemon``, in a session of its own.

    When this process dies, however it dies, the kernel sends the daemon SIGTERM, on which it unmounts its FUSE exports
    and quits. The kernel does that when the *thread* that started the daemon ends, so a daemon that is started by a
    thread which may end before its mounts do not have it: there, only :meth:`end` ends it.

    :param folder: its working folder, by which it is known to be ours when this process is dead
    :raises CapabilityMissing: it is not installed
    """

    def __init__(self, arguments: Sequence[str], *, inherited_fd: int, folder: Path) -> None:
        program = find_program(_PROGRAM)
        if program is None:
            hint = not_found(_PROGRAM)
            raise CapabilityMissing(capability="qemu", reason=f"{_PROGRAM} is not installed", hint=hint)
        # Not blocking on both ends: a daemon with much to complain of loses words, it does not wait for a reader.
        self._stderr, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._output = b""
        syscalls.libc()  # loaded here, so that the child has nothing to load between fork and exec
        parent = os.getpid()

        def die_with_parent() -> None:
            syscalls.set_parent_death_signal(signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

        in_main_thread = threading.current_thread() is threading.main_thread()
        try:
            self._process = subprocess.Popen(
                [program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                env=environment(),
                cwd=folder,
                pass_fds=(inherited_fd,),
                start_new_session=True,
                preexec_fn=die_with_parent if in_main_thread else None,
            )
        except BaseException:
            os.close(self._stderr)
            raise
        finally:
            os.close(write_end)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs still."""
        return self._process.poll() is None

    def wait(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds for its end; whether it has ended."""
        if self._process.poll() is not None:
            return True
        descriptor = os.pidfd_open(self.pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(timeout * 1000)
        finally:
            os.close(descriptor)
        return self._process.poll() is not None

    def end(self) -> bool:
        """End it: wait for it to quit by itself (2 s), then SIGTERM (1 s), then SIGKILL (2 s); whether it has ended."""
        ended = self.wait(patience(2))
        for number, seconds in ((signal.SIGTERM, patience(1)), (signal.SIGKILL, 2)):
            if not ended:
                self._process.send_signal(number)
                ended = self.wait(seconds)
        if ended and self._stderr >= 0:
            self.output()
            os.close(self._stderr)
            self._stderr = -1
        return ended

    def output(self) -> str:
        """The end of what it printed, at most 4 KB."""
        while self._stderr >= 0:
            try:
                part = os.read(self._stderr, 65536)
            except BlockingIOError:
                break
            if not part:
                break
            self._output = (self._output + part)[-_KEPT_OUTPUT:]
        return self._output.decode("utf-8", "backslashreplace").strip()

    def describe(self) -> str:
        """How it fares, and the end of what it printed."""
        code = self._process.poll()
        if code is None:
            how = f"process {self.pid} runs but does not answer"
        elif code < 0:
            how = f"it was ended by {signal.Signals(-code).name}"
        else:
            how = f"it ended with exit status {code}"
        output = self.output()
        return f"{how}; it printed: {output}" if output else how
