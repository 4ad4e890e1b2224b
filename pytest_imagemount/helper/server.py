"""The helper's loop: one test process, one request at a time, and everything undone at the end.

It never waits: for no device (the answer is then ``busy`` with who holds what, and the client asks again), and not for
the client to read. The end is the test process's end, seen by a pidfd as well as by the socket, since a child that the
test forked may still hold the socket open.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import ImageMountError, RequestInvalid
from . import messages, protocol
from .service import Service

if TYPE_CHECKING:
    from types import FrameType

_MOST_FILES = 1 << 16


class Server:
    """Serves the test process at the other end of ``channel``, as the user that the kernel says it is."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._client_pid, uid = messages.peer(channel)
        self._stop, self._waker = _wake_on_signals()
        self._service = Service(self._client_pid, uid)

    def serve(self) -> int:
        """Answer requests until the test process is gone or a signal says stop; then undo everything.

        Returns the exit status: 0 when nothing is left behind.
        """
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        with suppress(OSError):  # gone already, or not to be seen from here: the socket will tell
            poll.register(os.pidfd_open(self._client_pid), select.POLLIN)
        requests, stop = self._channel.fileno(), self._stop.fileno()
        daemon = _Daemon(poll)
        while True:
            daemon.watch(self._service.daemon_pid)
            ready = [descriptor for descriptor, _ in poll.poll()]
            if daemon.descriptor in ready:
                ready.remove(daemon.descriptor)
                daemon.forget()
                self._service.daemon_has_died()
                if not ready:
                    continue
            # Anything but a request, the client's death or a signal, ends the service.
            if ready != [requests] or not self._serve_one():
                return self._end(told_to_stop=stop in ready)

    def _serve_one(self) -> bool:
        """Whether the client is still there to be served."""
        try:
            message, received = messages.receive(self._channel, wait=False)
        except BlockingIOError:  # somebody else has read it
            return True
        except messages.DescriptorsLost as error:
            return self._say({"error": error.to_wire(), "sequence": error.sequence})
        except RequestInvalid as error:
            return self._say({"error": error.to_wire(), "sequence": None})
        except OSError:
            return False
        if message is None:
            return False
        sent: list[int] = []
        try:
            reply = self._answer(message, received, sent)
        finally:
            messages.close_all(received)
        try:
            return self._say({**reply, "sequence": protocol.sequence_of(message)}, tuple(sent))
        finally:
            messages.close_all(sent)

    def _answer(self, message: dict[str, Any], received: list[int], sent: list[int]) -> dict[str, Any]:
        try:
            return self._service.handle(protocol.decode_request(message), received, sent)
        except ImageMountError as error:
            return {"error": error.to_wire()}
        except OSError as error:
            return {"error": ImageMountError(f"in the helper: {type(error).__name__}: {error}").to_wire()}
        except Exception:  # noqa: BLE001  (a fault of ours must not cost the mounts that are held)
            import traceback

            return {"error": ImageMountError(f"a fault in the helper:\n{traceback.format_exc()}").to_wire()}

    def _say(self, reply: dict[str, Any], descriptors: tuple[int, ...] = ()) -> bool:
        """Whether the client took it. One that lets its answers pile up is not waited for: it is given up."""
        try:
            try:
                messages.send(self._channel, reply, descriptors, wait=False)
            except RequestInvalid as error:  # a reply that is too long
                short = {"error": error.to_wire(), "sequence": reply.get("sequence")}
                messages.send(self._channel, short, wait=False)
        except OSError:
            return False
        return True

    def _end(self, *, told_to_stop: bool) -> int:
        failures = self._service.undo(also_kept=told_to_stop)
        kept = self._service.holds_kept
        self._say({protocol.FAREWELL: [failure[:1000] for failure in failures[:50]], "kept": kept})
        self._channel.close()
        if failures:
            failures = self._service.undo_later()
        if kept:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal is closed, and the mounts are still to be seen
            failures = self._service.wait_for_end_of_kept(self._stop)
        for failure in failures:
            print(f"left behind: {failure}", file=sys.stderr)
        return 1 if failures else 0


class _Daemon:
    """The storage daemon among what ``poll`` waits for: its end is told by a descriptor."""

    def __init__(self, poll: select.poll) -> None:
        self._poll = poll
        self._pid: int | None = None
        self.descriptor = -1

    def watch(self, pid: int | None) -> None:
        """Wait for the end of process ``pid``, None for there is none; that of another is waited for no longer."""
        if pid == self._pid:
            return
        self.forget()
        self._pid = pid
        if pid is not None:
            with suppress(OSError):  # gone already
                self.descriptor = os.pidfd_open(pid)
                self._poll.register(self.descriptor, select.POLLIN)

    def forget(self) -> None:
        """Wait for nothing."""
        if self.descriptor >= 0:
            self._poll.unregister(self.descriptor)
            os.close(self.descriptor)
            self.descriptor = -1


def _allow_many_files() -> None:
    """Raise the soft limit on open files, which is 1024 mostly: every mount takes two descriptors and more.

    Not to the billion of some containers: programs that close every possible descriptor take a minute for that.
    """
    limit, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if limit < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main(arguments: list[str]) -> int:
    """Connect to the client's socket at path ``arguments[0]``, owned by user id ``arguments[1]``, and serve it."""
    path, uid = arguments
    _allow_many_files()
    # Ctrl-C is for the test process: it still needs us to tear down.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(PermissionError):  # the leader of its process group, where sudo ran us in its own stead
        os.setsid()
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        channel.connect(path)
    except OSError as error:
        print(f"the test process does not listen at {path!r}: {error.strerror}", file=sys.stderr)
        return 2
    peer_pid, peer_uid = messages.peer(channel)
    # The kernel's word for who is served. That sudo says so too, in SUDO_UID, is not: anybody can set that.
    if peer_uid != int(uid):
        print(f"{path!r}: process {peer_pid} belongs to user {peer_uid}, not {uid}", file=sys.stderr)
        return 2
    return Server(channel).serve()


def _wake_on_signals() -> tuple[socket.socket, socket.socket]:
    """A socket that becomes readable at SIGTERM and SIGHUP, which end the service, and its other end."""
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _woken)
    return reading, writing


def _woken(number: int, frame: FrameType | None) -> None:
    """Nothing to do here: the wake-up descriptor has told the loop."""
