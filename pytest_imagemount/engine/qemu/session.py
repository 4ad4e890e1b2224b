"""A running storage daemon and the conversation with it; a dead or silent one becomes a DeviceFailed."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ...errors import DeviceFailed
from .process import DaemonProcess
from .qmp import Command, Event, QmpClient, QmpError, QmpLost, QmpTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_DEVICE = "qemu-storage-daemon"


class QemuSession:
    """Starts the daemon, with its QMP monitor on a socket pair that nobody else can connect to.

    ``image`` is in every call the image's name, for messages.

    :param folder: the daemon's working folder
    :param timeout: seconds that one command may take
    :raises CapabilityMissing: qemu-storage-daemon is not installed
    :raises DeviceFailed: it ended at once
    """

    def __init__(self, folder: Path, *, timeout: float) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                arguments = ["--chardev", f"socket,id=qmp,fd={theirs.fileno()}", "--monitor", "chardev=qmp"]
                self._process = DaemonProcess(arguments, inherited_fd=theirs.fileno(), folder=folder)
            except BaseException:
                ours.close()
                raise
        self._client = QmpClient(ours, timeout=timeout)
        try:
            self._client.negotiate()
        except (QmpLost, QmpTimeout) as error:
            failure = self._failure("", error)
            self.stop()
            raise failure from error
        except BaseException:
            self.stop()
            raise

    @property
    def alive(self) -> bool:
        """Whether the daemon runs."""
        return self._process.alive

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def execute(self, image: str, command: str, arguments: Mapping[str, Any]) -> Any:
        """The answer to one command.

        :raises DeviceFailed: refused, or the daemon is dead or silent
        """
        (answer,) = self.execute_many(image, [Command(command, arguments)])
        if isinstance(answer, QmpError):
            hint = "`imagemount doctor` says what this machine can do"
            reason = f"{command} was refused: {answer.desc}"
            raise DeviceFailed(image=image, device=_DEVICE, reason=reason, hint=hint) from answer
        return answer

    def execute_many(self, image: str, commands: Sequence[Command]) -> list[Any]:
        """The answers, a refusal being a :class:`~.qmp.QmpError` among them.

        :raises DeviceFailed: the daemon is dead or silent
        """
        try:
            return self._client.execute_many(commands)
        except (QmpLost, QmpTimeout) as error:
            raise self._failure(image, error) from error

    def wait(self, image: str, wanted: Callable[[Event], bool]) -> None:
        """Wait for an event.

        :raises DeviceFailed: the daemon is dead or silent
        """
        try:
            self._client.wait_event(wanted)
        except (QmpLost, QmpTimeout) as error:
            raise self._failure(image, error) from error

    def create(self, image: str, job: str, options: Mapping[str, Any]) -> None:
        """Format the file of a new image; ``job`` is a name for it that is used once.

        :raises DeviceFailed: it failed, or the daemon is dead or silent
        """
        self.execute(image, "blockdev-create", {"job-id": job, "options": options})
        done = {"id": job, "status": "concluded"}
        self.wait(image, lambda event: event.name == "JOB_STATUS_CHANGE" and event.data == done)
        jobs, _ = self.execute_many(image, [Command("query-jobs"), Command("job-dismiss", {"id": job})])
        if failures := [str(found["error"]) for found in jobs if found["id"] == job and "error" in found]:
            hint = "the temporary folder (TMPDIR) may be full"
            reason = f"the temporary overlay was not made: {failures[0]}"
            raise DeviceFailed(image=image, device=_DEVICE, reason=reason, hint=hint)

    def ask(self, command: str, arguments: Mapping[str, Any], *, timeout: float) -> Any:
        """The answer, or the refusal as a :class:`~.qmp.QmpError`. For removals.

        :raises QmpLost: the daemon is dead, and everything in it gone
        :raises QmpTimeout: no answer in ``timeout`` seconds
        """
        return self.ask_many([Command(command, arguments)], timeout=timeout)[0]

    def ask_many(self, commands: Sequence[Command], *, timeout: float) -> list[Any]:
        """As :meth:`ask`, for several that are written at once."""
        return self._client.execute_many(commands, timeout=timeout)

    def saw(self, wanted: Callable[[Event], bool], *, timeout: float) -> bool:
        """Whether the event came within ``timeout`` seconds.

        :raises QmpLost: the daemon is dead
        """
        try:
            self._client.wait_event(wanted, timeout=timeout)
        except QmpTimeout:
            return False
        return True

    def stop(self) -> None:
        """End the daemon; twice is fine.

        :raises DeviceFailed: it does not even end by SIGKILL
        """
        with suppress(QmpLost, QmpTimeout, QmpError):
            self._client.execute("quit", timeout=1)
        self._client.close()
        if not self._process.end():
            hint = "a file system under the image does not answer: see the kernel log (dmesg)"
            raise DeviceFailed(image="", device=_DEVICE, reason=self._process.describe(), hint=hint)

    def _failure(self, image: str, error: QmpLost | QmpTimeout) -> DeviceFailed:
        if isinstance(error, QmpLost):
            self._process.wait(1)
        hint = "if it was killed for want of memory, run fewer workers; else report it with the image"
        return DeviceFailed(image=image, device=_DEVICE, reason=self._process.describe(), hint=hint)
