"""QMP, the control language of QEMU's programs: JSON, a line each, over a socket.

Synchronous: one command, or several written at once, then their answers. Source: QEMU's docs/interop/qmp-spec.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...errors import ImageMountError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

_MAX_LINE = 16 << 20  # bytes; the longest honest answer, a list of every node, takes about 1 KB a node
_KEPT_EVENTS = 256


class QmpError(ImageMountError, RuntimeError):
    """The daemon refused a command. ``error_class`` and ``desc`` are its own words."""

    def __init__(self, *, command: str, error_class: str, desc: str) -> None:
        self.command, self.error_class, self.desc = command, error_class, desc
        super().__init__(f"QMP command {command!r} refused: {desc} ({error_class})")


class QmpLost(ImageMountError, ConnectionError):
    """The daemon closed the connection, or said what is not QMP."""


class QmpTimeout(ImageMountError, TimeoutError):
    """The daemon did not answer in time."""


@dataclass(frozen=True, slots=True)
class Command:
    """One QMP command and its arguments, which are JSON values."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def encode(self, serial: int) -> bytes:
        """The line that asks for it, as short as can be.

        qemu 7.2 reads the monitor byte by byte, with some seven system calls each: 4 µs a byte, and a hundred times
        that in User-Mode Linux.
        """
        message = {"execute": self.name, "arguments": self.arguments, "id": serial}
        if not self.arguments:
            del message["arguments"]
        return json.dumps(message, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the daemon told unasked."""

    name: str
    data: Mapping[str, Any]


class QmpClient:
    """One end of a QMP connection; owns the socket.

    Commands carry a serial number, so that the answer to a command that was given up after its timeout is never taken
    for the answer to the next one.

    :param timeout: seconds that a command may take, unless told otherwise
    """

    def __init__(self, connection: socket.socket, *, timeout: float = 30.0) -> None:
        self._connection = connection
        self._timeout = timeout
        self._buffer = bytearray()
        self._serial = 0
        self._events: deque[Event] = deque(maxlen=_KEPT_EVENTS)

    def negotiate(self, timeout: float | None = None) -> None:
        """Read the greeting and leave negotiation mode; nothing else is answered before."""
        deadline = self._deadline(timeout)
        greeting = self._message(deadline)
        if "QMP" not in greeting:
            raise QmpLost(f"the storage daemon greeted with {str(greeting)[:200]}, which is not QMP")
        self.execute("qmp_capabilities", timeout=deadline - time.monotonic())

    def execute(self, name: str, arguments: Mapping[str, Any] | None = None, *, timeout: float | None = None) -> Any:
        """The answer to one command.

        :raises QmpError: refused
        :raises QmpTimeout: no answer in time
        :raises QmpLost: the daemon is gone
        """
        (answer,) = self.execute_many([Command(name, arguments or {})], timeout=timeout)
        if isinstance(answer, QmpError):
            raise answer
        return answer

    def execute_many(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Any]:
        """Write all ``commands`` in one go and return their answers in order; a refusal is a :class:`QmpError` there.

        The daemon runs them one after the other and does not stop at a refusal.
        """
        deadline = self._deadline(timeout)
        first = self._serial
        self._serial += len(commands)
        self._send(b"".join(command.encode(first + place) for place, command in enumerate(commands)), deadline)
        return [self._answer(command, first + place, deadline) for place, command in enumerate(commands)]

    def wait_event(self, wanted: Callable[[Event], bool], *, timeout: float | None = None) -> Event:
        """The first event, of those not asked for yet, that ``wanted`` accepts; others before it are dropped.

        :raises QmpTimeout: it did not come in time
        """
        deadline = self._deadline(timeout)
        while True:
            while self._events:
                event = self._events.popleft()
                if wanted(event):
                    return event
            self._keep_event(self._message(deadline))

    def close(self) -> None:
        """Close the connection; twice is fine."""
        self._connection.close()

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self._timeout if timeout is None else timeout)

    def _answer(self, command: Command, serial: int, deadline: float) -> Any:
        while True:
            message = self._message(deadline)
            if self._keep_event(message) or message.get("id") != serial:
                continue
            if "error" in message:
                error = message["error"]
                return QmpError(command=command.name, error_class=str(error["class"]), desc=str(error["desc"]))
            return message["return"]

    def _keep_event(self, message: dict[str, Any]) -> bool:
        if "event" not in message:
            return False
        self._events.append(Event(message["event"], message.get("data", {})))
        return True

    def _send(self, data: bytes, deadline: float) -> None:
        try:
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            self._connection.sendall(data)
        except TimeoutError:
            raise QmpTimeout("the storage daemon reads no commands") from None
        except OSError as error:
            raise QmpLost(f"the storage daemon closed its control connection: {error}") from error

    def _message(self, deadline: float) -> dict[str, Any]:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _MAX_LINE:
                raise QmpLost(f"the storage daemon sent a line of more than {_MAX_LINE} bytes")
            self._buffer += self._receive(deadline)
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise QmpLost(f"the storage daemon sent {line[:200]!r}, which is not QMP")
        return message

    def _receive(self, deadline: float) -> bytes:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise QmpTimeout("the storage daemon did not answer in time")
        try:
            self._connection.settimeout(remaining)
            data = self._connection.recv(65536)
        except TimeoutError:
            raise QmpTimeout("the storage daemon did not answer in time") from None
        except OSError as error:
            raise QmpLost(f"the storage daemon closed its control connection: {error}") from error
        if not data:
            raise QmpLost("the storage daemon closed its control connection")
        return data
