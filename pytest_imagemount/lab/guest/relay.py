"""Carry the command's streams over the line to the machine, until the command has ended and all is sent."""

from __future__ import annotations

import os
import select
import signal
import termios

from .. import frames
from ..line import READ, Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .command import Ends

_DRAIN_TIMEOUT = 1000  # milliseconds without a byte from a stream that nothing should hold open any more


class Relay:
    """The streams of one command: ``ends`` here, windows and messages on the ``line``."""

    def __init__(self, line: Line, ends: Ends) -> None:
        self._line = line
        self._ends = ends
        kinds = {frames.OUTPUT: ends.stdout, frames.ERRORS: ends.stderr, frames.TERMINAL: ends.terminal}
        self._outputs = {kind: fd for kind, fd in kinds.items() if fd >= 0}
        self._room = dict.fromkeys(kinds, frames.OUTPUT_WINDOW)
        self._input = ends.terminal if ends.stdin < 0 else ends.stdin
        self._pending = bytearray()
        self._input_ends = False

    def run(self, wakeup: int, ended: Callable[[], bool]) -> None:
        """Relay until ``ended`` says that the command has; ``wakeup`` becomes readable whenever a child ends."""
        while not ended():
            ready = self._poll(wakeup, None)
            if wakeup in ready:
                os.read(wakeup, READ)

    def drain(self) -> None:
        """Send what the command left in its streams; their writers are dead."""
        while self._outputs:
            blocked = any(self._room[kind] <= 0 for kind in self._outputs)
            if not self._poll(-1, None if blocked or self._line.waiting else _DRAIN_TIMEOUT):
                break
        self._line.flush()

    def complain(self, text: str) -> None:
        """Send a line of the lab's own to the caller's stderr."""
        self._line.send(frames.encode(frames.ERRORS, f"imagemount lab: {text}\n".encode(errors="surrogateescape")))

    def _poll(self, wakeup: int, timeout: int | None) -> set[int]:
        """Move what can be moved; the descriptors that were ready."""
        poll = select.poll()
        poll.register(self._line.fd, select.POLLIN | (select.POLLOUT if self._line.waiting else 0))
        if wakeup >= 0:
            poll.register(wakeup, select.POLLIN)
        interest: dict[int, int] = {}
        for kind, fd in self._outputs.items():
            if self._room[kind] > 0:
                interest[fd] = select.POLLIN
        if self._pending and self._input >= 0:
            interest[self._input] = interest.get(self._input, 0) | select.POLLOUT
        for fd, events in interest.items():
            poll.register(fd, events)
        ready = dict(poll.poll(timeout))
        for kind, fd in list(self._outputs.items()):
            if self._room[kind] > 0 and ready.get(fd, 0) & ~select.POLLOUT:
                self._take_output(kind, fd)
        if self._pending and ready.get(self._input, 0) & ~select.POLLIN:
            self._give_input()
        if self._line.fd in ready:
            for kind, payload in self._line.receive():
                self._obey(kind, payload)
            self._line.push()
        return set(ready)

    def _take_output(self, kind: int, fd: int) -> None:
        try:
            data = os.read(fd, min(frames.CHUNK, self._room[kind]))
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: the last user of the terminal has closed it
        if data:
            self._room[kind] -= len(data)
            self._line.send(frames.encode(kind, data))
        else:
            self._close_output(kind)

    def _close_output(self, kind: int) -> None:
        fd = self._outputs.pop(kind)
        os.close(fd)
        if fd == self._input:
            self._input = -1

    def _give_input(self) -> None:
        try:
            taken = os.write(self._input, self._pending)
        except BlockingIOError:
            return
        except OSError:
            # Nobody will read it. Without ACK the machine stops sending.
            self._close_input()
            return
        del self._pending[:taken]
        self._line.send(frames.encode_ack(frames.INPUT, taken))
        self._end_input()

    def _end_input(self) -> None:
        if self._input_ends and not self._pending and self._input >= 0:
            if self._input == self._ends.terminal:
                self._input_ends = False
                self._pending += termios.tcgetattr(self._input)[6][termios.VEOF]
            else:
                self._close_input()

    def _close_input(self) -> None:
        if self._input != self._ends.terminal:
            os.close(self._input)
        self._input = -1
        self._pending.clear()

    def _obey(self, kind: int, payload: bytes) -> None:
        if kind == frames.ACK:
            stream, taken = frames.decode_ack(payload)
            self._room[stream] += taken
        elif kind == frames.INPUT:
            if self._input >= 0:
                self._pending += payload
        elif kind == frames.INPUT_END:
            self._input_ends = True
            self._end_input()
        elif kind == frames.RESIZE and frames.TERMINAL in self._outputs:
            rows, columns = payload.split(b" ")
            termios.tcsetwinsize(self._ends.terminal, (int(rows), int(columns)))
        elif kind == frames.CLOSE and payload[0] in self._outputs:
            # The reader on the machine is gone; the command's next write shall fail, as it would there.
            self._close_output(payload[0])


def wake_on_child() -> int:
    """A descriptor that becomes readable whenever a child process ends."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return read
