"""The helper's loop: one test process, one request at a time, and everything undone at the end.

It never waits for a device: the answer is then ``busy`` with who holds what, and the client asks again. The end is
the test process's end, seen by a pidfd as well as by the socket, since a child that the test forked may still hold
the socket open.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.workspace import Owner, Workspace
from ..errors import ImageMountError, RequestInvalid, TeardownError
from . import protocol
from .operations import Busy, Mounts

if TYPE_CHECKING:
    from types import FrameType


class Server:
    """Serves the test process at the other end of ``channel``."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._client_pid, _ = protocol.peer(channel)
        self._stop, self._waker = _wake_on_signals()
        self._mounts: Mounts | None = None
        self._workspace: Workspace | None = None

    def serve(self) -> int:
        """Answer requests until the test process is gone or a signal says stop; then undo everything.

        Returns the exit status: 0 when nothing is left behind.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self._channel, selectors.EVENT_READ)
            selector.register(self._stop, selectors.EVENT_READ)
            try:
                selector.register(os.pidfd_open(self._client_pid), selectors.EVENT_READ)
            except ProcessLookupError:
                return self._close()
            while True:
                ready = {key.fileobj for key, _ in selector.select()}
                # Anything but a request, the client's death or a signal, ends the service.
                if ready != {self._channel} or not self._serve_one():
                    return self._close()

    def _serve_one(self) -> bool:
        sequence: Any = None
        descriptors: list[int] = []
        try:
            message, descriptors = protocol.receive(self._channel)
            if message is None:
                return False
            sequence = message.get("sequence")
            reply = self._handle(protocol.decode_request(message), descriptors)
        except (ImageMountError, OSError) as error:
            if isinstance(error, ConnectionError) and sequence is None:
                return False
            wire = error if isinstance(error, ImageMountError) else ImageMountError(f"in the helper: {error!r}")
            reply = {"error": wire.to_wire()}
        except Exception:  # noqa: BLE001  (a fault of ours must not cost the mounts that are held)
            reply = {"error": ImageMountError(f"a fault in the helper:\n{traceback.format_exc()}").to_wire()}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return self._reply({**reply, "sequence": sequence})

    def _reply(self, reply: dict[str, Any]) -> bool:
        try:
            protocol.send(self._channel, reply)
        except RequestInvalid as error:  # a reply that is too long
            protocol.send(self._channel, {"error": error.to_wire(), "sequence": reply["sequence"]})
        except OSError:
            return False
        return True

    def _handle(self, request: protocol.Request, descriptors: list[int]) -> dict[str, Any]:
        if isinstance(request, protocol.Configure):
            return self._configure(request)
        if self._mounts is None:
            raise RequestInvalid(argument="operation", value=repr(request.operation), reason="configure comes first")
        if isinstance(request, protocol.Open):
            result = self._mounts.open(request, descriptors)
            if isinstance(result, Busy):
                return {"busy": list(result.holders)}
            return {"facts": result.to_wire()}
        if isinstance(request, protocol.Release):
            self._mounts.release(request.mount)
            return {"released": request.mount}
        return {"mounts": self._mounts.status()}

    def _configure(self, request: protocol.Configure) -> dict[str, Any]:
        if request.version != protocol.VERSION:
            reason = f"this helper speaks version {protocol.VERSION}: two versions of the package are installed"
            raise RequestInvalid(argument="version", value=str(request.version), reason=reason)
        if self._mounts is None:
            self._workspace = Workspace(nbd_devices=request.nbd_devices, nbd_start=request.nbd_start)
            self._mounts = Mounts(self._workspace, Owner(self._client_pid, request.worker))
        return {"pid": os.getpid()}

    def _close(self) -> int:
        failures: list[str] = []
        if self._mounts is not None:
            failures += self._mounts.close()
        if self._workspace is not None:
            try:
                self._workspace.close()
            except TeardownError as error:
                failures += error.failures
        for failure in failures:
            print(f"left behind: {failure}", file=sys.stderr)
        return 1 if failures else 0


def main(arguments: list[str]) -> int:
    """Connect to the client's socket at path ``arguments[0]``, owned by user id ``arguments[1]``, and serve it."""
    path, uid = arguments
    # Ctrl-C is for the test process: it still needs us to tear down.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    channel.connect(path)
    peer_pid, peer_uid = protocol.peer(channel)
    if peer_uid != int(uid):
        print(f"{Path(path)}: process {peer_pid} belongs to user {peer_uid}, not {uid}", file=sys.stderr)
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
