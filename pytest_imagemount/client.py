"""The test process's side of the helper: starts it, speaks to it, sees it off."""

from __future__ import annotations

import atexit
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .engine.folders import run_folder
from .errors import CapabilityMissing, HelperLost, HelperStartFailed, from_wire
from .helper import protocol

if TYPE_CHECKING:
    from typing import IO

    from .config import Settings

_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 10.0

# Not `-m`: isolated mode keeps PYTHON* variables and the working folder from choosing what the helper imports, and
# the package may be on a path that only this process knows.
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from pytest_imagemount.helper.server import main; sys.exit(main(sys.argv[1:]))"
)


class Client:
    """One helper process and the socket to it. Threads may share it; a forked child may not use it."""

    def __init__(self, settings: Settings, *, worker: str = "", nbd_start: int = 0) -> None:
        self._lock = threading.Lock()
        self._sequence = 0
        self._mount = 0
        self.pid = os.getpid()
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the helper)
        self._process, self._channel = _start(settings, self._output)
        configure = protocol.Configure(protocol.VERSION, worker, settings.nbd_devices, nbd_start)
        self.helper_pid: int = self.ask(configure)["pid"]

    def new_mount(self) -> int:
        """A number for a mount, to be registered for release before the mount is asked for."""
        with self._lock:
            self._mount += 1
            return self._mount

    def ask(self, request: protocol.Request, descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        """The helper's answer.

        :raises ImageMountError: what the helper reports
        :raises HelperLost: it is gone
        """
        if os.getpid() != self.pid:
            reason = "this process was forked from the one that started the helper"
            raise HelperLost(reason=reason, hint="mount in the child after os.fork by mount_image() anew")
        with self._lock:
            reply = self._exchange(request, descriptors)
        if "error" in reply:
            raise from_wire(reply["error"])
        return reply

    def close(self) -> None:
        """End the helper, which first undoes everything; its last words, if it left anything, are raised.

        :raises HelperLost: something was left behind, or it did not end in time
        """
        if os.getpid() != self.pid:
            return
        self._channel.close()
        try:
            status = self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            reason = f"helper {self.helper_pid} was still undoing after {_STOP_TIMEOUT:.0f} s"
            raise HelperLost(reason=reason, hint=f"look at it with: ps -fp {self.helper_pid}") from None
        text = self._last_words()
        self._output.close()
        if status:
            raise HelperLost(reason=f"it ended with status {status}", hint=text or "it said nothing")

    def _exchange(self, request: protocol.Request, descriptors: tuple[int, ...]) -> dict[str, Any]:
        self._sequence += 1
        message = {**protocol.encode_request(request), "sequence": self._sequence}
        try:
            protocol.send(self._channel, message, descriptors)
            while True:
                reply, _ = protocol.receive(self._channel)
                if reply is None:
                    raise ConnectionResetError("it closed the connection")
                if reply.get("sequence") == self._sequence:
                    return reply
        except OSError as error:
            hint = self._last_words() or "it said nothing; see the kernel log (dmesg) for a kill"
            raise HelperLost(reason=str(error), hint=hint) from error

    def _last_words(self) -> str:
        size = os.fstat(self._output.fileno()).st_size
        return os.pread(self._output.fileno(), 4000, max(0, size - 4000)).decode(errors="replace").strip()


def _start(settings: Settings, output: IO[bytes]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a helper that connects back to a socket in the run folder."""
    privilege = _privilege(settings)
    path = run_folder() / f"client-{os.getpid()}-{threading.get_ident():x}"
    package_folder = str(Path(__file__).parent.parent)
    python = [sys.executable, "-I", "-c", _BOOT, package_folder, str(path), str(os.geteuid())]
    argv = [*privilege, *python]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        try:
            listener.listen(1)
            # A session of its own: the terminal's Ctrl-C goes to the test process alone.
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, cwd="/"
            )
            channel = _accept(listener, process, output)
        finally:
            path.unlink()
    _, uid = protocol.peer(channel)
    if uid not in (0, os.geteuid()):
        channel.close()
        raise HelperStartFailed(
            reason=f"user {uid} connected in its place", hint="nobody else may write in the run folder"
        )
    return process, channel


def _privilege(settings: Settings) -> list[str]:
    """What comes before the helper's command: nothing for root, sudo for others."""
    if os.geteuid() == 0:
        return []
    if settings.sudo == "never":
        reason, hint = "not root, and imagemount_sudo=never", "run as root, or let imagemount_sudo be auto"
        raise CapabilityMissing(capability="root", reason=reason, hint=hint)
    from .capabilities import missing

    if no_sudo := missing("sudo"):
        hint = "run as root, allow `sudo -n` for this user, or run the tests in `imagemount lab`"
        raise CapabilityMissing(capability="root", reason=f"not root, and {no_sudo}", hint=hint)
    return ["sudo", "-n", "--"]


def _accept(listener: socket.socket, process: subprocess.Popen[bytes], output: IO[bytes]) -> socket.socket:
    deadline = time.monotonic() + _START_TIMEOUT
    listener.settimeout(0.05)
    while True:
        try:
            channel, _ = listener.accept()
        except TimeoutError:
            status = process.poll()
            if status is None and time.monotonic() < deadline:
                continue
            process.kill()
            reason = f"no word from it within {_START_TIMEOUT:.0f} s" if status is None else f"exit status {status}"
            output.seek(0)
            text = output.read()[-4000:].decode(errors="replace").strip()
            raise HelperStartFailed(reason=reason, hint="its output follows", output=text) from None
        channel.setblocking(True)
        return channel


_current: Client | None = None
_current_lock = threading.Lock()


def current_client(settings: Settings, *, worker: str = "", nbd_start: int = 0) -> Client:
    """This process's helper, started at the first call."""
    global _current
    with _current_lock:
        if _current is None or _current.pid != os.getpid():
            _current = Client(settings, worker=worker, nbd_start=nbd_start)
            atexit.register(close_current_client)
        return _current


def close_current_client() -> None:
    """End this process's helper, if there is one.

    :raises HelperLost: something was left behind
    """
    global _current
    with _current_lock:
        client, _current = _current, None
    atexit.unregister(close_current_client)
    if client is not None:
        client.close()
