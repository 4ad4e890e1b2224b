"""Files of a mounted image, opened and changed as root, for a client that is not root.

The image is the client's: it showed that it may read it, and for ``rw`` that it may write it. So its files are the
client's too, whoever owns them inside. Nothing outside is: no link, ``..`` or further mount leads out, and no device
node, FIFO or socket is opened.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..confined import CALLS, IN_ROOT, Change, apply, open_below, pinned
from ..engine.syscalls import RESOLVE_NO_XDEV
from ..errors import RequestInvalid
from ..xattrs import read_xattrs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .protocol import ChangeInside, OpenInside, XattrsInside

WITHIN = IN_ROOT | RESOLVE_NO_XDEV
"""No further mount: whatever somebody mounts below an image's folder, /proc or /dev perhaps, is none of the image."""
ACROSS = IN_ROOT
"""Further mounts too, where the image's own file systems are mounted below its root."""
_PERMISSIONS = 0o7777
_WALK = os.O_DIRECTORY | os.O_NOFOLLOW
_MAKE = os.O_CREAT | os.O_EXCL
_XATTRS_A_REPLY = 1 << 22  # bytes; the attributes of one file may be more, if there is room for them in memory
_MOST_XATTRS = 1 << 26
# O_LARGEFILE is 0 in the C library of 64-bit machines.
_ACCEPTED = (
    (os.O_ACCMODE | os.O_PATH | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_LARGEFILE)
    | (os.O_APPEND | os.O_TRUNC | os.O_SYNC | os.O_NOATIME)
    | _WALK
    | _MAKE
)


def open_inside(root: int, request: OpenInside, resolve: int = WITHIN) -> int:
    """A descriptor of the file that ``request`` names below the folder open at ``root``.

    :param resolve: :data:`WITHIN` or :data:`ACROSS`
    :raises RequestInvalid: flags that are not for a client to choose
    :raises OSError: as the kernel says; ENXIO for what is neither a regular file nor a folder
    """
    flags = request.flags
    if flags < 0 or flags & ~_ACCEPTED or flags & os.O_ACCMODE == os.O_ACCMODE:
        raise RequestInvalid(argument="flags", value=oct(flags), reason=f"must be of {oct(_ACCEPTED)}")
    _check_mode(request.mode)
    if flags & os.O_PATH:
        return open_below(root, request.path, os.O_PATH | flags & _WALK, resolve=resolve)
    try:
        descriptor = open_below(root, request.path, os.O_PATH | flags & _WALK, resolve=resolve)
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
        return _make(root, request, resolve)
    try:
        _require_openable(descriptor, flags)
        # By the descriptor itself, so that what is opened is what was looked at. The name is a link, to be followed.
        return os.open(pinned(descriptor), (flags & ~(_WALK | _MAKE)) | os.O_NOCTTY | os.O_CLOEXEC)
    finally:
        os.close(descriptor)


def change_inside(root: int, request: ChangeInside, resolve: int = WITHIN) -> None:
    """Make the change that ``request`` names below the folder open at ``root``.

    :raises RequestInvalid: there is no such change
    :raises OSError: as the kernel says
    """
    if request.call not in CALLS:
        raise RequestInvalid(argument="call", value=repr(request.call), reason=f"must be one of {', '.join(CALLS)}")
    _check_mode(request.mode)
    change = Change(request.call, request.path, request.other, request.mode)
    with _modes_as_given():
        apply(change, lambda path, flags: open_below(root, path, flags, resolve=resolve))


def xattrs_inside(root: int, request: XattrsInside, resolve: int = WITHIN) -> int:
    """A file in memory with the extended attributes that ``request`` asks for, see :class:`.protocol.XattrsInside`."""
    reply = os.memfd_create("imagemount-xattrs")
    try:
        with open(reply, "wb", closefd=False) as file:
            for path in request.paths:
                file.write(_xattrs_line(root, path, resolve, follow=request.follow))
                if file.tell() >= _XATTRS_A_REPLY:
                    break
        os.lseek(reply, 0, os.SEEK_SET)
    except BaseException:
        os.close(reply)
        raise
    return reply


def _xattrs_line(root: int, path: str, resolve: int, *, follow: bool) -> bytes:
    answer: dict[str, object]
    try:
        descriptor = open_below(root, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW), resolve=resolve)
        try:
            found = read_xattrs(pinned(descriptor), most=_MOST_XATTRS)
        finally:
            os.close(descriptor)
        answer = {"xattrs": {name: base64.b64encode(value).decode() for name, value in found.items()}}
    except OSError as error:
        answer = {"errno": error.errno, "reason": error.strerror}
    return json.dumps(answer).encode() + b"\n"


def _make(root: int, request: OpenInside, resolve: int) -> int:
    # What was not there a moment ago may be there now, and need not be a file: never wait for it.
    flags = request.flags | os.O_NONBLOCK | os.O_NOCTTY
    with _modes_as_given():
        descriptor = open_below(root, request.path, flags, request.mode, resolve=resolve)
    try:
        _require_openable(descriptor, 0)
        os.set_blocking(descriptor, not request.flags & os.O_NONBLOCK)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_openable(descriptor: int, flags: int) -> None:
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    number = 0
    if flags & _MAKE == _MAKE:
        number = errno.EEXIST
    elif kind == stat.S_IFLNK:
        number = errno.ELOOP
    elif kind == stat.S_IFDIR and flags & os.O_CREAT:
        number = errno.EISDIR
    elif kind not in (stat.S_IFREG, stat.S_IFDIR):
        number = errno.ENXIO
    if number:
        raise OSError(number, os.strerror(number))


def _check_mode(mode: int) -> None:
    if mode & ~_PERMISSIONS:
        raise RequestInvalid(
            argument="mode", value=oct(mode), reason=f"must be permission bits, of {oct(_PERMISSIONS)}"
        )


@contextmanager
def _modes_as_given() -> Iterator[None]:
    """The client has taken its own umask off."""
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)
