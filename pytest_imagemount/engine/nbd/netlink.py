"""Generic netlink, as much as the kernel's NBD driver needs, over Python's own socket module.

Sources: netlink(7), linux/genetlink.h, linux/nbd-netlink.h. Integers are in the machine's byte order.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

DISCONNECT_ON_CLOSE = 1 << 1
"""Client flag: the last close of the device disconnects it."""

_NETLINK_GENERIC = 16
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_NLMSG_ERROR = 2
_NLM_F_REQUEST, _NLM_F_ACK = 0x1, 0x4
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSGERR_ATTR_MSG = 1
_NLA_F_NESTED, _NLA_TYPE_MASK = 0x8000, 0x3FFF

_GENL_ID_CTRL, _CTRL_CMD_GETFAMILY = 16, 3
_CTRL_ATTR_FAMILY_ID, _CTRL_ATTR_FAMILY_NAME = 1, 2

_CMD_CONNECT, _CMD_DISCONNECT, _CMD_RECONFIGURE, _CMD_STATUS = 1, 2, 3, 5
_ATTR_INDEX, _ATTR_SIZE_BYTES, _ATTR_BLOCK_SIZE_BYTES, _ATTR_TIMEOUT = 1, 2, 3, 4
_ATTR_SERVER_FLAGS, _ATTR_CLIENT_FLAGS, _ATTR_SOCKETS, _ATTR_DEAD_CONN_TIMEOUT = 5, 6, 7, 8
_ATTR_DEVICE_LIST, _ATTR_BACKEND_IDENTIFIER = 9, 10
_SOCK_ITEM, _SOCK_FD = 1, 1
_DEVICE_ITEM, _DEVICE_INDEX, _DEVICE_CONNECTED = 1, 1, 2

_HEADER = struct.Struct("=IHHII")
_GENERIC_HEADER = struct.Struct("=BBH")
_ATTRIBUTE_HEADER = struct.Struct("=HH")


class Message(NamedTuple):
    """One netlink message; ``body`` is what follows the 16-byte header."""

    kind: int
    flags: int
    serial: int
    body: bytes


def attribute(kind: int, payload: bytes) -> bytes:
    """One attribute: length and type, payload, padding to four bytes."""
    length = _ATTRIBUTE_HEADER.size + len(payload)
    return _ATTRIBUTE_HEADER.pack(length, kind) + payload + bytes(-length % 4)


def u32(kind: int, value: int) -> bytes:
    """An attribute that is a 32-bit number."""
    return attribute(kind, struct.pack("=I", value))


def u64(kind: int, value: int) -> bytes:
    """An attribute that is a 64-bit number."""
    return attribute(kind, struct.pack("=Q", value))


def text(kind: int, value: str) -> bytes:
    """An attribute that is a string, which netlink ends with a zero byte."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | _NLA_F_NESTED, b"".join(attributes))


def parse_attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and payload of each attribute in ``data``.

    :raises ValueError: a length points outside
    """
    place = 0
    while place + _ATTRIBUTE_HEADER.size <= len(data):
        length, kind = _ATTRIBUTE_HEADER.unpack_from(data, place)
        if length < _ATTRIBUTE_HEADER.size or place + length > len(data):
            raise ValueError(f"netlink attribute of {length} bytes at {place} in {len(data)} bytes")
        yield kind & _NLA_TYPE_MASK, data[place + _ATTRIBUTE_HEADER.size : place + length]
        place += length + -length % 4


def request(family: int, command: int, serial: int, attributes: bytes, *, version: int = 1) -> bytes:
    """A generic netlink request that wants an acknowledgement."""
    length = _HEADER.size + _GENERIC_HEADER.size + len(attributes)
    header = _HEADER.pack(length, family, _NLM_F_REQUEST | _NLM_F_ACK, serial, 0)
    return header + _GENERIC_HEADER.pack(command, version, 0) + attributes


def parse_messages(data: bytes) -> Iterator[Message]:
    """The netlink messages in one datagram.

    :raises ValueError: a length points outside
    """
    place = 0
    while place + _HEADER.size <= len(data):
        length, kind, flags, serial, _ = _HEADER.unpack_from(data, place)
        if length < _HEADER.size or place + length > len(data):
            raise ValueError(f"netlink message of {length} bytes at {place} in {len(data)} bytes")
        yield Message(kind, flags, serial, data[place + _HEADER.size : place + length])
        place += length + -length % 4


def acknowledgement_error(message: Message) -> OSError | None:
    """What an acknowledgement says: None for success, else the error with the kernel's own text where it gave one."""
    (code,) = struct.unpack_from("=i", message.body)
    if not code:
        return None
    reason = os.strerror(-code)
    if message.flags & _NLM_F_ACK_TLVS:
        # The request that failed is repeated after the code, whole unless the kernel says that it was cut.
        (length,) = struct.unpack_from("=I", message.body, 4)
        place = 4 + (_HEADER.size if message.flags & _NLM_F_CAPPED else length + -length % 4)
        told = dict(parse_attributes(message.body[place:])).get(_NLMSGERR_ATTR_MSG)
        if told:
            reason += f" ({told.rstrip(bytes(1)).decode('utf-8', 'backslashreplace')})"
    return OSError(-code, reason)


class NbdNetlink:
    """The kernel's NBD driver, spoken to by generic netlink; owns its socket.

    Every refusal is an OSError: ``EBUSY`` the device is taken, ``EPERM`` without CAP_SYS_ADMIN, ``EINVAL`` else.
    """

    def __init__(self, connection: socket.socket, family: int) -> None:
        self._connection, self._family = connection, family
        self._serial = 1

    @classmethod
    def open(cls) -> NbdNetlink | None:
        """The driver, or None where this network namespace has no such family: no module, or a container's network."""
        connection = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_GENERIC)
        try:
            connection.settimeout(30)
            connection.bind((0, 0))
            connection.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            connection.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            driver = cls(connection, _GENL_ID_CTRL)
            answer = driver._ask(_CTRL_CMD_GETFAMILY, text(_CTRL_ATTR_FAMILY_NAME, "nbd"))
            (driver._family,) = struct.unpack("=H", dict(parse_attributes(answer))[_CTRL_ATTR_FAMILY_ID])
        except OSError as error:
            connection.close()
            if error.errno == errno.ENOENT:
                return None
            raise
        except BaseException:
            connection.close()
            raise
        return driver

    def connect(
        self,
        index: int,
        *,
        connection: socket.socket,
        size: int,
        block_size: int,
        server_flags: int,
        backend: str,
        client_flags: int = 0,
        timeout: int = 0,
        dead_connection_timeout: int = 0,
    ) -> int:
        """Make ``/dev/nbd<index>`` a disk of ``size`` bytes served by ``connection``; the index of the device.

        The kernel takes a reference of the socket, so the caller's descriptor may be closed afterwards. An index that
        the module did not create at its start is created.

        :param connection: a socket after the NBD handshake
        :param server_flags: the flags that the handshake gave
        :param backend: an identifier of our choice, readable in sysfs (Linux 5.14)
        :param timeout: seconds after which a request without an answer fails; 0 never
        """
        attributes = [
            u32(_ATTR_INDEX, index),
            u64(_ATTR_SIZE_BYTES, size),
            u64(_ATTR_BLOCK_SIZE_BYTES, block_size),
            u64(_ATTR_SERVER_FLAGS, server_flags),
            u64(_ATTR_CLIENT_FLAGS, client_flags),
            u64(_ATTR_TIMEOUT, timeout),
            u64(_ATTR_DEAD_CONN_TIMEOUT, dead_connection_timeout),
            nested(_ATTR_SOCKETS, nested(_SOCK_ITEM, u32(_SOCK_FD, connection.fileno()))),
            text(_ATTR_BACKEND_IDENTIFIER, backend),
        ]
        answer = self._ask(_CMD_CONNECT, b"".join(attributes))
        return _u32_of(dict(parse_attributes(answer))[_ATTR_INDEX])

    def reconfigure(self, index: int, *, client_flags: int, backend: str) -> None:
        """Replace the client flags of a connected device; ``backend`` must be what :meth:`connect` was given."""
        attributes = u32(_ATTR_INDEX, index) + u64(_ATTR_CLIENT_FLAGS, client_flags)
        self._ask(_CMD_RECONFIGURE, attributes + text(_ATTR_BACKEND_IDENTIFIER, backend))

    def disconnect(self, index: int) -> None:
        """Disconnect a device, whoever uses it; success also where it was not connected."""
        self._ask(_CMD_DISCONNECT, u32(_ATTR_INDEX, index))

    def status(self, index: int | None = None) -> dict[int, bool]:
        """Index to connected-or-not, of one device or of all; an open device that nobody connected counts as well."""
        answer = self._ask(_CMD_STATUS, b"" if index is None else u32(_ATTR_INDEX, index))
        states = {}
        for kind, items in parse_attributes(answer):
            for _, item in parse_attributes(items) if kind == _ATTR_DEVICE_LIST else ():
                values = dict(parse_attributes(item))
                states[_u32_of(values[_DEVICE_INDEX])] = bool(values[_DEVICE_CONNECTED][0])
        return states

    def _ask(self, command: int, attributes: bytes) -> bytes:
        """Send a request; the attributes of the answer, empty where only an acknowledgement comes."""
        self._serial += 1
        self._connection.send(request(self._family, command, self._serial, attributes))
        answer = b""
        while True:
            for message in parse_messages(self._connection.recv(1 << 20)):
                if message.serial != self._serial:
                    continue
                if message.kind != _NLMSG_ERROR:
                    answer += message.body[_GENERIC_HEADER.size :]
                elif error := acknowledgement_error(message):
                    raise error
                else:
                    return answer

    def close(self) -> None:
        """Close the socket; twice is fine."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _u32_of(payload: bytes) -> int:
    return int(struct.unpack("=I", payload)[0])
