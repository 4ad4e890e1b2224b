"""Messages on a SOCK_SEQPACKET socket: one JSON object a packet, with descriptors.

A packet socket keeps messages apart and carries descriptors with them (SCM_RIGHTS), so that there is no framing to
get wrong. The kernel vouches for who is at the other end.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_MESSAGE = 128 * 1024
"""Bytes of the largest message; a longer one is refused before it is parsed."""
MAX_DESCRIPTORS = 253
"""What the kernel lets one message carry (SCM_MAX_FD, unix(7))."""
_INT = struct.Struct("i")
# As plain numbers: the enumerations' own operators take a microsecond each.
_CLOSE_ON_EXEC, _DO_NOT_WAIT = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_DONTWAIT)
_CUT_OFF, _RIGHTS_CUT_OFF = int(socket.MSG_TRUNC), int(socket.MSG_CTRUNC)
_ENCODER = json.JSONEncoder(separators=(",", ":"))


class DescriptorsLost(RequestInvalid):
    """A message came without all of its descriptors. ``sequence`` is its number, None where it has none."""

    def __init__(self, *, sequence: int | None) -> None:
        self.sequence = sequence
        reason = "the process that got it has no room for more open files: raise `ulimit -n`"
        super().__init__(argument="message", value="without its descriptors", reason=reason)


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
    if len(descriptors) > MAX_DESCRIPTORS:
        reason = f"more than the {MAX_DESCRIPTORS} that can be handed over at once"
        raise RequestInvalid(argument="message", value=f"{len(descriptors)} open files", reason=reason)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
    channel.sendmsg([data], rights, 0 if wait else _DO_NOT_WAIT)


def receive(channel: socket.socket, *, wait: bool = True) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message and its descriptors, which are the caller's to close; None when the other side is gone.

    :param wait: false: BlockingIOError where there is no message now
    :raises RequestInvalid: the packet is too long or is no JSON object; its descriptors are closed
    :raises DescriptorsLost: this process has no room for them
    """
    # Not socket.recv_fds, which passes no flags on (CPython 3.11): the descriptors would be inherited by programs.
    data, ancillary, flags, _ = channel.recvmsg(
        MAX_MESSAGE,
        socket.CMSG_SPACE(MAX_DESCRIPTORS * _INT.size),
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
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RequestInvalid(argument="message", value=repr(data[:40]), reason=f"no JSON: {error}") from None
    if not isinstance(message, dict):
        raise RequestInvalid(argument="message", value=repr(data[:40]), reason="must be a JSON object")
    if flags & _RIGHTS_CUT_OFF:
        number = message.get("sequence")
        raise DescriptorsLost(sequence=number if type(number) is int else None)
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
    """Close each of ``descriptors``. One of a file whose server is gone is closed too, whatever close(2) answers."""
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)
