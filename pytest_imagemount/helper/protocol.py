"""What the test process and its helper say to each other: one JSON object a packet on a SOCK_SEQPACKET socket.

A packet socket keeps messages apart and carries descriptors with them (SCM_RIGHTS), so that there is no framing to
get wrong. Every request has a ``sequence`` number that its reply repeats: a reply that nobody waits for any more,
after a Ctrl-C, is told by it. The client chooses the ``mount`` number, before it asks: it can release a mount whose
reply it never saw.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from ..errors import RequestInvalid

VERSION = 1
MAX_MESSAGE = 128 * 1024
"""Bytes of the largest message; a longer one is refused before it is parsed."""
_MAX_DESCRIPTORS = 4
_INT = struct.Struct("i")


@dataclass(frozen=True, slots=True)
class Configure:
    """The first request: what holds for the whole life of the helper."""

    operation: ClassVar[str] = "configure"
    version: int
    worker: str
    nbd_devices: int
    nbd_start: int


@dataclass(frozen=True, slots=True)
class Open:
    """Attach an image and, unless ``attach_only``, mount it. Carries the image's descriptor, then the mount point's."""

    operation: ClassVar[str] = "open"
    mount: int
    name: str
    source: str
    partition: int | str | None
    format: str | None
    mode: str
    fstype: str | None
    options: tuple[str, ...]
    backend: str
    test: str
    attach_only: bool
    partition_nodes: bool


@dataclass(frozen=True, slots=True)
class Release:
    """Undo what ``mount`` holds. An unknown number is no error: it is gone, as was wanted."""

    operation: ClassVar[str] = "release"
    mount: int


@dataclass(frozen=True, slots=True)
class Status:
    """Ask which mounts are held."""

    operation: ClassVar[str] = "status"


Request = Configure | Open | Release | Status
_KINDS: dict[str, type[Request]] = {kind.operation: kind for kind in (Configure, Open, Release, Status)}

# The types of fields, written as the dataclasses write them.
_CHECKS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "bool": (bool,),
    "str": (str,),
    "str | None": (str, type(None)),
    "int | str | None": (int, str, type(None)),
    "tuple[str, ...]": (list,),
}


def encode_request(request: Request) -> dict[str, Any]:
    """The request as JSON values."""
    return {"operation": request.operation, **asdict(request)}


def decode_request(value: dict[str, Any]) -> Request:
    """The request in a message.

    :raises RequestInvalid: an unknown operation, or a field that is missing, unknown or of another type
    """
    operation = value.get("operation")
    kind = _KINDS.get(operation) if isinstance(operation, str) else None
    if kind is None:
        raise RequestInvalid(argument="operation", value=repr(operation), reason=f"must be one of {', '.join(_KINDS)}")
    given = {name: content for name, content in value.items() if name not in ("operation", "sequence")}
    known = {field.name: str(field.type) for field in fields(kind)}
    if unknown := given.keys() ^ known.keys():
        reason = f"{operation} takes exactly {', '.join(known) or 'nothing'}"
        raise RequestInvalid(argument="fields", value=repr(sorted(unknown)), reason=reason)
    return kind(**{name: _checked(name, given[name], kind_name) for name, kind_name in known.items()})


def _checked(name: str, content: Any, kind: str) -> Any:
    accepted = _CHECKS[kind]
    fits = isinstance(content, accepted) and (bool in accepted or not isinstance(content, bool))
    if fits and isinstance(content, list):
        fits = all(isinstance(item, str) for item in content)
    if not fits:
        raise RequestInvalid(argument=name, value=repr(content)[:100], reason=f"must be {kind}")
    return tuple(content) if isinstance(content, list) else content


def send(channel: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """Send one message.

    :raises OSError: the other side is gone
    """
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE:
        raise RequestInvalid(argument="message", value=f"{len(data)} bytes", reason=f"longer than {MAX_MESSAGE} bytes")
    socket.send_fds(channel, [data], descriptors)


def receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors, which are the caller's to close; None when the other side is gone.

    :raises RequestInvalid: the packet is too long or is no JSON object; its descriptors are closed
    """
    # Not socket.recv_fds, which passes no flags on (CPython 3.11): the descriptors would be inherited by programs.
    data, ancillary, flags, _ = channel.recvmsg(
        MAX_MESSAGE, socket.CMSG_SPACE(_MAX_DESCRIPTORS * _INT.size), socket.MSG_CMSG_CLOEXEC
    )
    descriptors = _descriptors(ancillary)
    if not data:
        _close(descriptors)
        return None, []
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise RequestInvalid(argument="message", value="cut off", reason=f"longer than {MAX_MESSAGE} bytes")
        try:
            message = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RequestInvalid(argument="message", value=repr(data[:40]), reason=f"no JSON: {error}") from None
        if not isinstance(message, dict):
            raise RequestInvalid(argument="message", value=repr(data[:40]), reason="must be a JSON object")
    except RequestInvalid:
        _close(descriptors)
        raise
    return message, descriptors


def peer(channel: socket.socket) -> tuple[int, int]:
    """pid and uid of the process at the other end, as the kernel vouches for them (SO_PEERCRED)."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    return [
        number
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        for (number,) in _INT.iter_unpack(data[: len(data) - len(data) % _INT.size])
    ]


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
