"""What the test process and its helper say to each other, a JSON object a message (:mod:`.messages`).

Every request has a ``sequence`` number that its reply repeats: a reply that nobody waits for any more, after a Ctrl-C,
is told by it. The client chooses the ``mount`` number, before it asks: it can release a mount whose reply it never saw.

An answer is what was asked for, or has ``error`` (an :class:`~..errors.ImageMountError` as JSON values) or ``errno``.
When the client has shut down its side, the helper undoes everything that is not kept, and then says :data:`FAREWELL`.
"""

from __future__ import annotations

import os
import reprlib
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

from ..errors import RequestInvalid

VERSION = 1
FAREWELL = "farewell"
"""Name in the helper's last message: the lines that tell what is left behind. ``kept``: it lives on for kept mounts."""
_NUMBERS = range(1 << 63)
_PARTITIONS = range(1 - (1 << 31), 1 << 31)
"""No partition has a number below 1, but for -1, which is ``"auto"``: who looks for it there says what there is."""


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
    if isinstance(content, int):
        allowed = _PARTITIONS if name == "partition" else _NUMBERS
        if content not in allowed:
            reason = f"must be from {allowed[0]} to {allowed[-1]}"
            raise RequestInvalid(argument=name, value=reprlib.repr(content), reason=reason)
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
    return number if type(number) is int and number in _NUMBERS else None
