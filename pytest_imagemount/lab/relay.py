"""The machine's end of the line: the caller's streams to and from the command in the lab."""

from __future__ import annotations

import contextlib
import os
import select
import time
from enum import Enum
from typing import TYPE_CHECKING

from . import frames
from .line import Line, LineLost
from .streams import RawInput

if TYPE_CHECKING:
    from .kernel import Kernel
    from .streams import Streams

_BOOT_TIMEOUT = 120.0  # seconds; two to three are usual
_SETTLE_TIMEOUT = 20.0  # seconds for unmounting and writing back after the command's end
_RESIZE_POLL = 0.5  # seconds
_INTERRUPT = b"\x03"
_INTERRUPT_PATIENCE = 2.0  # seconds in which a living kernel takes what was typed
# A pipe that is ready for writing takes this much without blocking (PIPE_BUF in pipe(7)).
_WRITE = 4096


class LabTimeout(Exception):
    """The time that the caller gave is up."""


class Phase(Enum):
    """How far the lab is. ``SETTLING``: the command has ended, the kernel writes back what it holds."""

    BOOTING = "boot"
    RUNNING = "run"
    SETTLING = "settle"
    CLEAN = "clean"


class Relay:
    """One command's streams. ``config`` is the payload that tells the guest what to run."""

    def __init__(self, kernel: Kernel, streams: Streams, config: bytes) -> None:
        self._kernel = kernel
        self._line = Line(kernel.line.fileno())
        self._streams = streams
        self._config = bytearray(config)
        self._targets = {
            frames.OUTPUT: streams.stdout,
            frames.ERRORS: streams.stderr,
            frames.TERMINAL: streams.terminal,
        }
        self._pending = {kind: bytearray() for kind in self._targets}
        self._raw: RawInput | None = None
        self._size = streams.size()
        self._input_open = True
        self._room = {frames.CONFIG: frames.INPUT_WINDOW, frames.INPUT: frames.INPUT_WINDOW}
        self._unacknowledged = dict.fromkeys(self._targets, 0)
        self._untaken_since = 0.0
        self._keeper_speaks = True
        self._status = 0
        self._enter(Phase.BOOTING, _BOOT_TIMEOUT)

    def _enter(self, phase: Phase, timeout: float | None = None) -> None:
        self._phase = phase
        self._phase_deadline = None if timeout is None else time.monotonic() + timeout

    def run(self, deadline: float | None) -> int:
        """Relay until the command has ended and the kernel has written everything back; the exit status.

        :param deadline: in seconds, as ``time.monotonic()`` counts
        :raises LabTimeout: the deadline has passed
        :raises LabFailed: the kernel ended by itself, or did not come up
        """
        try:
            while self._phase is not Phase.CLEAN or any(self._pending.values()):
                try:
                    self._step(self._time_left(deadline))
                except LineLost:
                    self._lost(deadline)
        finally:
            if self._raw:
                self._raw.restore()
        return self._status

    def _time_left(self, deadline: float | None) -> float | None:
        """Seconds until the next thing to do without a message; acts on a deadline that has passed."""
        now = time.monotonic()
        if deadline is not None and now >= deadline:
            raise LabTimeout
        if self._phase_deadline is not None and now >= self._phase_deadline:
            if self._phase is Phase.BOOTING:
                raise self._kernel.failure(
                    f"its kernel did not come up within {_BOOT_TIMEOUT:.0f} s", "see its console"
                )
            self.say("the kernel did not finish unmounting; what the command wrote last may be missing")
            self._enter(Phase.CLEAN)
            return 0.0
        ticks = [_RESIZE_POLL] if self._streams.terminal >= 0 else []
        ends = [end - now for end in (deadline, self._phase_deadline) if end is not None]
        return max(0.0, min((*ticks, *ends))) if ticks or ends else None

    def _lost(self, deadline: float | None) -> None:
        """The kernel is gone. Before its command ended that is a failure, told after what came out of it."""
        if self._phase in (Phase.SETTLING, Phase.CLEAN):
            self._enter(Phase.CLEAN)
            return
        while any(self._pending.values()):
            self._poll_targets(self._time_left(deadline))
        what = "did not come up" if self._phase is Phase.BOOTING else "ended before the command did"
        raise self._kernel.failure(f"its kernel {what}", "see the end of its console")

    def _step(self, timeout: float | None) -> None:
        interest = self._target_interest()
        if self._phase is not Phase.CLEAN:
            interest[self._line.fd] = select.POLLIN | (select.POLLOUT if self._line.waiting else 0)
        if self._keeper_speaks:
            interest[self._kernel.status_fd] = select.POLLIN
        if self._phase is Phase.RUNNING and self._input_open and self._room[frames.INPUT] > 0:
            stdin = self._streams.stdin
            interest[stdin] = interest.get(stdin, 0) | select.POLLIN
        ready = _poll(interest, timeout)
        self._write_targets(ready)
        if ready.get(self._line.fd):
            for kind, payload in self._line.receive():
                self._obey(kind, payload)
            with contextlib.suppress(LineLost):
                self._line.push()
        if interest.get(self._streams.stdin, 0) & select.POLLIN and ready.get(self._streams.stdin, 0) & ~select.POLLOUT:
            self._take_input()
        if ready.get(self._kernel.status_fd):
            self._keeper_speaks = not self._kernel.listen()
        self._tell_size()

    def _target_interest(self) -> dict[int, int]:
        return {self._targets[kind]: select.POLLOUT for kind, data in self._pending.items() if data}

    def _poll_targets(self, timeout: float | None) -> None:
        self._write_targets(_poll(self._target_interest(), timeout))

    def _write_targets(self, ready: dict[int, int]) -> None:
        for kind, data in self._pending.items():
            if not data or not ready.get(self._targets[kind], 0) & ~select.POLLIN:
                continue
            try:
                written = os.write(self._targets[kind], data[:_WRITE])
            except BlockingIOError:
                continue
            except OSError:
                # Nobody reads it any more. The command shall learn that as it would here: by SIGPIPE.
                data.clear()
                self._send(frames.encode(frames.CLOSE, bytes((kind,))))
                continue
            del data[:written]
            self._unacknowledged[kind] += written
            if self._unacknowledged[kind] >= frames.ACK_STEP:
                self._send(frames.encode_ack(kind, self._unacknowledged[kind]))
                self._unacknowledged[kind] = 0

    def _send(self, message: bytes) -> None:
        """Send what can be sent. A line that is lost is noticed at the end of what came over it, which still counts."""
        with contextlib.suppress(LineLost):
            self._line.send(message)

    def _take_input(self) -> None:
        try:
            data = os.read(self._streams.stdin, self._room[frames.INPUT])
        except BlockingIOError:
            return
        except OSError:
            data = b""  # closed, a folder, a terminal that hung up
        if not data:
            self._input_open = False
            self._send(frames.encode(frames.INPUT_END))
            return
        now = time.monotonic()
        if self._room[frames.INPUT] == frames.INPUT_WINDOW:
            self._untaken_since = now
        elif self._raw and _INTERRUPT in data and now > self._untaken_since + _INTERRUPT_PATIENCE:
            raise KeyboardInterrupt  # nobody in there takes what is typed
        self._send_stream(frames.INPUT, data)

    def _obey(self, kind: int, payload: bytes) -> None:
        if kind in self._pending:
            self._pending[kind] += payload
        elif kind == frames.ACK:
            stream, taken = frames.decode_ack(payload)
            self._room[stream] += taken
            self._untaken_since = time.monotonic()
            self._send_config()
        elif kind == frames.HELLO:
            self._send_config()
        elif kind == frames.STARTED:
            if self._streams.terminals[0]:
                self._raw = RawInput(self._streams.stdin)
            self._enter(Phase.RUNNING)
        elif kind == frames.ENDED:
            self._status = int(payload)
            self._enter(Phase.SETTLING, _SETTLE_TIMEOUT)
        elif kind == frames.CLEAN:
            if payload:
                stuck = ", ".join(payload.decode(errors="surrogateescape").splitlines())
                self.say(f"could not be unmounted, and was lost with the kernel: {stuck}")
            self._enter(Phase.CLEAN)
        elif kind == frames.FAILED:
            raise self._kernel.failure(f"could not be set up: {payload.decode(errors='replace')}", "see its console")

    def _send_config(self) -> None:
        """Send what the guest has room for of what it is to run."""
        if not self._config:
            return
        part = bytes(self._config[: self._room[frames.CONFIG]])
        del self._config[: len(part)]
        self._send_stream(frames.CONFIG, part)
        if not self._config:
            self._send(frames.encode(frames.CONFIG_END))

    def _send_stream(self, kind: int, data: bytes) -> None:
        self._room[kind] -= len(data)
        self._send(frames.encode(kind, data))

    def _tell_size(self) -> None:
        if self._phase is Phase.RUNNING and (size := self._streams.size()) != self._size:
            self._size = size
            self._send(frames.encode(frames.RESIZE, b"%d %d" % size))

    def say(self, text: str) -> None:
        """A line of the lab's own on the caller's stderr."""
        with contextlib.suppress(OSError):
            os.write(self._streams.stderr, f"imagemount lab: {text}\n".encode(errors="backslashreplace"))


def _poll(interest: dict[int, int], timeout: float | None) -> dict[int, int]:
    """Wait at most ``timeout`` seconds; the events of each descriptor that is ready."""
    poll = select.poll()
    for fd, events in interest.items():
        poll.register(fd, events)
    return dict(poll.poll(None if timeout is None else timeout * 1000 + 1))
