"""The test process's side of the helper: speaks to it, sees it off."""

from __future__ import annotations

import atexit
import os
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import HelperLost, TeardownError, from_wire, is_ours
from .helper import messages, protocol
from .helper_start import abandon, last_words, start_helper
from .signals import Deferred

if TYPE_CHECKING:
    import subprocess
    from typing import IO

    from .config import Settings

__tracebackhide__ = is_ours
_STOP_TIMEOUT = 10.0
_LOOK_AGAIN = 200  # milliseconds


class _Reply(NamedTuple):
    message: dict[str, Any]
    descriptors: list[int]


class Client:
    """One helper process and the socket to it. Threads may share it; a forked child may not use it."""

    def __init__(self, settings: Settings, *, worker: str = "", nbd_start: int = 0) -> None:
        # Reentrant: a signal handler may tear down in the middle of a request.
        self._lock = threading.RLock()
        self._sequence = 0
        self._awaited: dict[int, _Reply | None] = {}
        self._mount = 0
        self.pid = os.getpid()
        # In memory: nobody's disk is full, and tempfile would take 6 ms to import.
        self._output: IO[bytes] = os.fdopen(os.memfd_create("imagemount-helper-output", os.MFD_CLOEXEC), "w+b")
        try:
            self._process, self._channel = start_helper(settings.sudo, self._output)
        except BaseException:
            self._output.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._channel, select.POLLIN)
        configure = protocol.Configure(protocol.VERSION, worker, settings.nbd_devices, nbd_start)
        try:
            self.helper_pid: int = self.ask(configure)["pid"]
        except BaseException:
            self._channel.close()
            abandon(self._process)  # it ends by itself
            self._output.close()
            raise

    def new_mount(self) -> int:
        """A number for a mount, to be registered for release before the mount is asked for."""
        with self._lock:
            self._mount += 1
            return self._mount

    def ask(self, request: protocol.Request, descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        """The helper's answer.

        :raises ImageMountError: what the helper reports
        :raises OSError: with the errno that it reports
        :raises HelperLost: it is gone
        """
        message, received = self._ask(request, descriptors)
        messages.close_all(received)
        return message

    def ask_for_file(self, request: protocol.OpenInside | protocol.XattrsInside) -> int:
        """The descriptor that the helper opened; errors as for :meth:`ask`."""
        with Deferred():  # a descriptor that an interrupt let drop would keep the mount busy
            message, received = self._ask(request, ())
        if len(received) != 1:
            messages.close_all(received)
            raise HelperLost(reason=f"{len(received)} descriptors came for {message}", hint="report this as a bug")
        return received[0]

    def close(self) -> None:
        """End the helper, which first undoes everything that is not kept.

        One that holds what is kept, or what is busy still, lives on.

        :raises TeardownError: what was left behind
        :raises HelperLost: it was gone already, or said nothing in time
        """
        if os.getpid() != self.pid:
            self._disown()
            return
        try:
            with self._lock:
                farewell = self._part()
            if farewell[protocol.FAREWELL] or farewell["kept"]:
                abandon(self._process)
            if left := farewell[protocol.FAREWELL]:
                raise TeardownError(subject=f"helper {self.helper_pid}", failures=left)
            if not farewell["kept"]:
                self._see_it_end()
        finally:
            self._channel.close()
            self._output.close()

    def _disown(self) -> None:
        """Close what a forked child has of it. The helper is the parent's, and hears nothing of this."""
        abandon(self._process)
        self._channel.close()
        self._output.close()

    def _ask(self, request: protocol.Request, descriptors: tuple[int, ...]) -> _Reply:
        if os.getpid() != self.pid:
            reason = "this process was forked from the one that started the helper"
            raise HelperLost(reason=reason, hint="mount in the child after os.fork by mount_image() anew")
        with self._lock:
            reply = self._exchange(request, descriptors)
        if "error" in reply.message or "errno" in reply.message:
            messages.close_all(reply.descriptors)
            if "error" in reply.message:
                raise from_wire(reply.message["error"])
            raise OSError(reply.message["errno"], os.strerror(reply.message["errno"]))
        return reply

    def _exchange(self, request: protocol.Request, descriptors: tuple[int, ...]) -> _Reply:
        self._sequence += 1
        number = self._sequence
        self._awaited[number] = None
        try:
            messages.send(self._channel, {**protocol.encode_request(request), "sequence": number}, descriptors)
            while (reply := self._awaited[number]) is None:
                self._take_one()
            return reply
        except OSError as error:
            lost = self._lost(error.strerror or str(error))
        finally:
            del self._awaited[number]
        # Not in the handler: behind it is shown what the test raised, if anything, and not the fault of the socket.
        raise lost

    def _take_one(self) -> None:
        """Read one reply and put it where it is awaited; one that nobody waits for any more is dropped."""
        # Not for ever: a signal handler that asks for something itself takes this one's reply too, and Python goes on
        # waiting when the handler is done.
        if not self._poll.poll(_LOOK_AGAIN):
            return
        try:
            message, descriptors = messages.receive(self._channel, wait=False)
        except BlockingIOError:
            return
        if message is None:
            raise ConnectionResetError("it closed the connection")
        if protocol.FAREWELL in message:
            raise ConnectionResetError("it was told to stop, by SIGTERM perhaps")
        number = protocol.sequence_of(message)
        if number in self._awaited:
            self._awaited[number] = _Reply(message, descriptors)
        else:
            messages.close_all(descriptors)

    def _part(self) -> dict[str, Any]:
        """Tell the helper that it was all, and return what it says at last."""
        deadline = time.monotonic() + _STOP_TIMEOUT
        try:
            # Not close: a forked child may hold the socket as well.
            self._channel.shutdown(socket.SHUT_WR)
            while True:
                self._channel.settimeout(max(0.01, deadline - time.monotonic()))
                message, descriptors = messages.receive(self._channel)
                messages.close_all(descriptors)
                if message is None:
                    raise ConnectionResetError("it had ended before")
                if protocol.FAREWELL in message:
                    return message
        except TimeoutError:
            abandon(self._process)
            reason = f"helper {self.helper_pid} was still undoing after {_STOP_TIMEOUT:.0f} s"
            lost = HelperLost(reason=reason, hint=f"look at it with: ps -fp {self.helper_pid}")
        except OSError as error:
            lost = self._lost(error.strerror or str(error))
        raise lost

    def _see_it_end(self) -> None:
        if not _ends_within(self._process, _STOP_TIMEOUT):
            abandon(self._process)
            reason = f"helper {self.helper_pid} had nothing left to undo, and did not end"
            raise HelperLost(reason=reason, hint=f"look at it with: ps -fp {self.helper_pid}")
        status = self._process.wait()
        if status:
            raise self._lost(f"it ended with status {status}")

    def _lost(self, reason: str) -> HelperLost:
        status = self._process.poll()
        reason += f" ({_how_ended(status)})" if status else ""
        hint = last_words(self._output) or "it said nothing; see the kernel log (dmesg) for a kill"
        return HelperLost(reason=reason, hint=hint)


def _ends_within(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Whether it ends in that time. Popen's own wait looks again after pauses of up to 50 ms."""
    if process.poll() is not None:
        return True
    descriptor = os.pidfd_open(process.pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _how_ended(status: int) -> str:
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


_current: Client | None = None
_current_lock = threading.Lock()


def _renew_lock() -> None:
    """In a forked child: the thread that may have had it is not there to release it."""
    global _current_lock
    _current_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def current_client(settings: Settings, *, worker: str = "", nbd_start: int = 0) -> Client:
    """This process's helper, started at the first call."""
    global _current
    with _current_lock:
        if _current is not None and _current.pid != os.getpid():
            _current.close()
            _current = None
        if _current is None:
            _current = Client(settings, worker=worker, nbd_start=nbd_start)
            atexit.register(close_current_client)
        return _current


def close_current_client() -> None:
    """End this process's helper, if there is one.

    :raises TeardownError: something was left behind
    :raises HelperLost: the helper was gone before
    """
    global _current
    with _current_lock:
        client, _current = _current, None
    atexit.unregister(close_current_client)
    if client is not None:
        client.close()
