"""What the test process and its helper say to each other: one JSON object a packet on a SOCK_SEQPACKET socket.

A packet socket keeps messages apart and carries descriptors with them (SCM_RIGHTS), so that there is no framing to
get wrong. Every request has a ``sequence`` number that its reply repeats: a reply that nobody waits for any more,
after a Ctrl-C, is told by it. The client chooses the ``mount`` number, before it asks: it can release a mount whose
reply it never saw.

An answer is what was asked for, or has ``error`` (an :class:`~..errors.ImageMountError` as JSON values) or ``errno``.
When the client has shut down its side, the helper undoes everything that is not kept, and then says :data:`FAREWELL`.
"""

from __future__ import annotations

import json
import os
import reprlib
import select
import socket
import struct
from array import array
from dataclasses import MISSING, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable

VERSION = 1
MAX_MESSAGE = 128 * 1024
"""Bytes of the largest message; a longer one is refused before it is parsed."""
FAREWELL = "farewell"
"""Name in the helper's last message: the lines that tell what is left behind. ``kept``: it lives on for kept mounts."""
_MAX_DESCRIPTORS = 32
_MAX_INT = 1 << 63
_INT = struct.Struct("i")
# As plain numbers: the enumerations' own operators take a microsecond each.
_CLOSE_ON_EXEC, _DO_NOT_WAIT = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_DONTWAIT)
_CUT_OFF, _RIGHTS_CUT_OFF = int(socket.MSG_TRUNC), int(socket.MSG_CTRUNC)
_ENCODER = json.JSONEncoder(separators=(",", ":"))


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
    """Attach an image and, unless ``attach_only``, mount it.

    ``carries`` says what each descriptor that comes along is: ``image``, always the first; ``mountpoint``;
    ``key``, a memfd with a passphrase or a key; ``member:NAME``, a further image of the same array;
    ``file:PATH``, a file that the image refers to and may. Fields with a default may be left out of the message.

    :param under: number of a mount of the same image, at whose path ``at``, resolved inside it, this one is mounted
    """

    operation: ClassVar[str] = "open"
    mount: int
    name: str
    source: str
    partition: int | str | None = None
    format: str | None = None
    mode: str = "ro"
    fstype: str | None = None
    options: tuple[str, ...] = ()
    backend: str = "auto"
    test: str = ""
    attach_only: bool = False
    partition_nodes: bool = False
    volume: str | None = None
    subvolume: str | None = None
    verity: str | None = None
    architecture: str | None = None
    overlay_size: int | None = None
    under: int | None = None
    at: str = ""
    carries: tuple[str, ...] = ("image",)


@dataclass(frozen=True, slots=True)
class Release:
    """Undo what ``mount`` holds. An unknown number is no error: it is gone, as was wanted."""

    operation: ClassVar[str] = "release"
    mount: int


@dataclass(frozen=True, slots=True)
class Status:
    """Ask which mounts are held."""

    operation: ClassVar[str] = "status"


@dataclass(frozen=True, slots=True)
class Layout:
    """Ask what the partitions of the image are that is mounted as ``mount``: see :func:`.layout.layout_of`."""

    operation: ClassVar[str] = "layout"
    mount: int
    architecture: str | None


@dataclass(frozen=True, slots=True)
class Keep:
    """Do not undo ``mount`` at the end: the helper lives on with it, until SIGTERM or until it is unmounted by hand."""

    operation: ClassVar[str] = "keep"
    mount: int


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Undo what dead helpers left, or with ``dry_run`` only say what that would be."""

    operation: ClassVar[str] = "reclaim"
    dry_run: bool


@dataclass(frozen=True, slots=True)
class OpenInside:
    """Open ``path`` inside the mounted image as root would; the reply carries the descriptor, or an ``errno``."""

    operation: ClassVar[str] = "open-inside"
    mount: int
    path: str
    flags: int
    mode: int


@dataclass(frozen=True, slots=True)
class ChangeInside:
    """Change the tree of the mounted image as root would; the reply may hold an ``errno``.

    ``call`` is a name of :data:`..confined.CALLS`; ``other`` is the second path of a rename, the text of a link.
    """

    operation: ClassVar[str] = "change-inside"
    mount: int
    call: str
    path: str
    other: str
    mode: int


@dataclass(frozen=True, slots=True)
class Run:
    """Run a command of the mounted image, confined (:mod:`.run_inside`).

    Five descriptors come along: its stdin, stdout and stderr, the writing end of the pipe by which its end is told, and
    the reading end of a pipe: when that becomes readable, the command is ended.

    ``environment`` has an item ``NAME=value`` each. The ids are the image's; ``groups`` are the supplementary ones.
    """

    operation: ClassVar[str] = "run"
    mount: int
    argv: tuple[str, ...]
    environment: tuple[str, ...] = ()
    folder: str = "/"
    user: int = 0
    group: int = 0
    groups: tuple[str, ...] = ()
    network: bool = False
    writable: bool = False


@dataclass(frozen=True, slots=True)
class XattrsInside:
    """Read the extended attributes of paths inside the mounted image as root would.

    The reply carries the descriptor of a file in memory: a JSON line for each path from the first on, in order, with
    the attributes by name (values as base64) or an ``errno``. Where they grow large the last paths are left out, and
    are to be asked for again.

    :param follow: of what a link points at, not of the link itself
    """

    operation: ClassVar[str] = "xattrs-inside"
    mount: int
    paths: tuple[str, ...]
    follow: bool


InsideRequest = OpenInside | ChangeInside | XattrsInside
Request = Configure | Open | Release | Status | Layout | Keep | Reclaim | InsideRequest | Run
_KINDS: dict[str, type[Request]] = {
    kind.operation: kind
    for kind in (Configure, Open, Release, Status, Layout, Keep, Reclaim, OpenInside, ChangeInside, XattrsInside, Run)
}

# The types and the defaults of fields, by operation and field.
_TYPES = {name: {field.name: str(field.type) for field in fields(kind)} for name, kind in _KINDS.items()}
_DEFAULTS = {name: {field.name: field.default for field in fields(kind)} for name, kind in _KINDS.items()}

# What JSON has for each type, written as the dataclasses write it.
_CHECKS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "bool": (bool,),
    "str": (str,),
    "int | None": (int, type(None)),
    "str | None": (str, type(None)),
    "int | str | None": (int, str, type(None)),
    "tuple[str, ...]": (list,),
}


def encode_request(request: Request) -> dict[str, Any]:
    """The request as JSON values, without the fields that have their default."""
    given = {name: getattr(request, name) for name in _DEFAULTS[request.operation]}
    defaults = _DEFAULTS[request.operation]
    return {"operation": request.operation, **{name: it for name, it in given.items() if it != defaults[name]}}


def decode_request(value: dict[str, Any]) -> Request:
    """The request in a message.

    :raises RequestInvalid: an unknown operation, or a field that is unknown, of another type, or missing without having
        a default
    """
    operation = value.get("operation")
    kind = _KINDS.get(operation) if isinstance(operation, str) else None
    if kind is None:
        reason = f"must be one of {', '.join(_KINDS)}"
        raise RequestInvalid(argument="operation", value=reprlib.repr(operation), reason=reason)
    given = {name: content for name, content in value.items() if name not in ("operation", "sequence")}
    known = _TYPES[kind.operation]
    needed = {name for name, default in _DEFAULTS[kind.operation].items() if default is MISSING}
    if wrong := (given.keys() - known.keys()) | (needed - given.keys()):
        reason = f"{operation} takes {', '.join(known) or 'nothing'}"
        raise RequestInvalid(argument="fields", value=reprlib.repr(sorted(wrong)), reason=reason)
    return kind(**{name: _checked(name, content, known[name]) for name, content in given.items()})


def _checked(name: str, content: Any, kind: str) -> Any:
    accepted = _CHECKS[kind]
    fits = isinstance(content, accepted) and (bool in accepted or not isinstance(content, bool))
    if fits and isinstance(content, list):
        fits = all(isinstance(item, str) for item in content)
    if not fits:
        raise RequestInvalid(argument=name, value=reprlib.repr(content), reason=f"must be {kind}")
    if isinstance(content, int) and not -_MAX_INT <= content < _MAX_INT:
        raise RequestInvalid(argument=name, value=reprlib.repr(content), reason="must fit in 64 bits")
    for text in content if isinstance(content, list) else [content]:
        if isinstance(text, str) and not _is_system_text(text):
            reason = "must be text that a system call takes: no NUL, and no surrogates but those of os.fsdecode"
            raise RequestInvalid(argument=name, value=reprlib.repr(text), reason=reason)
    return tuple(content) if isinstance(content, list) else content


def _is_system_text(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def sequence_of(message: dict[str, Any]) -> int | None:
    """The message's sequence number; None where it has none that is one."""
    number = message.get("sequence")
    return number if type(number) is int and -_MAX_INT <= number < _MAX_INT else None


def send(
    channel: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = (), *, wait: bool = True
) -> None:
    """Send one message.

    :param wait: false: BlockingIOError where the other side does not take what it was sent before
    :raises OSError: the other side is gone
    """
    data = _ENCODER.encode(message).encode()
    if len(data) > MAX_MESSAGE:
        raise RequestInvalid(argument="message", value=f"{len(data)} bytes", reason=f"longer than {MAX_MESSAGE} bytes")
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
    channel.sendmsg([data], rights, 0 if wait else _DO_NOT_WAIT)


def receive(channel: socket.socket, *, wait: bool = True) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors, which are the caller's to close; None when the other side is gone.

    :param wait: false: BlockingIOError where there is no message now
    :raises RequestInvalid: the packet is too long or is no JSON object; its descriptors are closed
    """
    # Not socket.recv_fds, which passes no flags on (CPython 3.11): the descriptors would be inherited by programs.
    data, ancillary, flags, _ = channel.recvmsg(
        MAX_MESSAGE,
        socket.CMSG_SPACE(_MAX_DESCRIPTORS * _INT.size),
        _CLOSE_ON_EXEC | (0 if wait else _DO_NOT_WAIT),
    )
    descriptors = _descriptors(ancillary)
    try:
        if not data and _is_at_end(channel):
            close_all(descriptors)
            return None, []
        return _parse(data, flags), descriptors
    except RequestInvalid:
        close_all(descriptors)
        raise


def _parse(data: bytes, flags: int) -> dict[str, Any]:
    if flags & _CUT_OFF:
        raise RequestInvalid(argument="message", value="cut off", reason=f"longer than {MAX_MESSAGE} bytes")
    if flags & _RIGHTS_CUT_OFF:
        reason = f"more than {_MAX_DESCRIPTORS} descriptors, or no room for them in this process"
        raise RequestInvalid(argument="message", value="cut off", reason=reason)
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestInvalid(argument="message", value=repr(data[:40]), reason=f"no JSON: {error}") from None
    if not isinstance(message, dict):
        raise RequestInvalid(argument="message", value=repr(data[:40]), reason="must be a JSON object")
    return message


def _is_at_end(channel: socket.socket) -> bool:
    """Whether the other side sends no more: an empty packet looks the same as its end."""
    poll = select.poll()
    poll.register(channel, select.POLLRDHUP)
    return bool(poll.poll(0))


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


def close_all(descriptors: Iterable[int]) -> None:
    """Close each of ``descriptors``."""
    for descriptor in descriptors:
        os.close(descriptor)
