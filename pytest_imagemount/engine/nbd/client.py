"""The client's side of the NBD protocol, in user space: handshake, and reads of a disk before it is a device.

Source: the protocol document of the NBD project, doc/proto.md (fixed newstyle negotiation, NBD_OPT_GO, simple replies).
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ImageMountError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

FLAG_READ_ONLY = 1 << 1

_GREETING = struct.Struct(">8s8sH")
_OPTION = struct.Struct(">8sII")
_OPTION_REPLY = struct.Struct(">QIII")
_INFO_EXPORT_BODY = struct.Struct(">HQH")
_INFO_BLOCK_SIZE_BODY = struct.Struct(">HIII")
_REQUEST = struct.Struct(">IHHQQI")
_REPLY = struct.Struct(">IIQ")

_MAGIC, _OPTION_MAGIC = b"NBDMAGIC", b"IHAVEOPT"
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_REQUEST_MAGIC, _REPLY_MAGIC = 0x25609513, 0x67446698
_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_OPT_GO = 7
_REP_ACK, _REP_INFO, _REP_ERROR = 1, 3, 1 << 31
_INFO_EXPORT, _INFO_BLOCK_SIZE = 0, 3
_CMD_READ, _CMD_DISC = 0, 2

_MAX_REPLY = 65536  # bytes of one option reply; the protocol's strings are at most 4096
_MAX_READ = 1 << 20  # bytes of one read request; any server takes 32 MiB, and small pieces bound our memory
_MAX_DISK = 1 << 63

_REFUSALS = {
    1: "it does not know NBD_OPT_GO",
    2: "its policy forbids it",
    3: "it found the request malformed",
    4: "its platform does not support it",
    5: "it demands TLS",
    6: "it has no export of that name",
    7: "it is shutting down",
    8: "it demands a block size",
    9: "it found the request too big",
}


class NbdError(ImageMountError, ConnectionError):
    """The NBD server refused, vanished, or broke the protocol."""

    def __init__(self, *, export: str, reason: str) -> None:
        self.export, self.reason = export, reason
        super().__init__(f"NBD export {export!r}: {reason}")


@dataclass(frozen=True, slots=True)
class Export:
    """What a server says of an export. Sizes are in bytes, ``flags`` are the NBD_FLAG_* transmission flags."""

    name: str
    size: int
    flags: int
    minimum_block: int = 1
    preferred_block: int = 4096
    maximum_block: int = 32 << 20

    @property
    def readonly(self) -> bool:
        """The server takes no writes."""
        return bool(self.flags & FLAG_READ_ONLY)


def open_export(server: str | os.PathLike[str], name: str, *, timeout: float = 30.0) -> tuple[socket.socket, Export]:
    """Connect to the unix socket ``server`` and finish the handshake for export ``name``.

    :param timeout: seconds for each wait
    :returns: the socket, ready for the transmission phase and owned by the caller, and the export
    :raises NbdError: refused, or not an NBD server
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        try:
            connection.connect(os.fspath(server))
        except OSError as error:
            raise NbdError(
                export=name, reason=f"no server at {os.fspath(server)}: {error.strerror or error}"
            ) from error
        return connection, handshake(connection, name)
    except BaseException:
        connection.close()
        raise


def handshake(connection: socket.socket, name: str) -> Export:
    """Fixed newstyle negotiation of export ``name`` on a fresh ``connection``.

    :raises NbdError: refused, or not an NBD server
    """
    magic, option_magic, offered = _GREETING.unpack(_receive(connection, _GREETING.size, name))
    if (magic, option_magic) != (_MAGIC, _OPTION_MAGIC) or not offered & _FIXED_NEWSTYLE:
        raise NbdError(export=name, reason="what answers there is not a fixed-newstyle NBD server")
    encoded = name.encode()
    go = struct.pack(f">I{len(encoded)}sHH", len(encoded), encoded, 1, _INFO_BLOCK_SIZE)
    flags = struct.pack(">I", offered & (_FIXED_NEWSTYLE | _NO_ZEROES))
    _send(connection, flags + _OPTION.pack(_OPTION_MAGIC, _OPT_GO, len(go)) + go, name)

    size_and_flags: tuple[int, int] | None = None
    blocks: tuple[int, int, int] | None = None
    while True:
        kind, body = _option_reply(connection, name)
        if kind == _REP_ACK:
            break
        if kind & _REP_ERROR:
            reason = _REFUSALS.get(kind ^ _REP_ERROR, f"error {kind ^ _REP_ERROR}")
            said = f" ({body.decode('utf-8', 'backslashreplace')})" if body else ""
            raise NbdError(export=name, reason=f"the server refused: {reason}{said}")
        info = struct.unpack_from(">H", body)[0] if kind == _REP_INFO and len(body) >= 2 else None
        if info == _INFO_EXPORT and len(body) == _INFO_EXPORT_BODY.size:
            size_and_flags = _INFO_EXPORT_BODY.unpack(body)[1:]
        elif info == _INFO_BLOCK_SIZE and len(body) == _INFO_BLOCK_SIZE_BODY.size:
            blocks = _INFO_BLOCK_SIZE_BODY.unpack(body)[1:]
    if size_and_flags is None:
        raise NbdError(export=name, reason="the server did not tell the size")
    export = Export(name, *size_and_flags) if blocks is None else Export(name, *size_and_flags, *blocks)
    _check(export)
    return export


def _check(export: Export) -> None:
    minimum, maximum = export.minimum_block, export.maximum_block
    if export.size >= _MAX_DISK or minimum not in {1 << power for power in range(17)} or maximum < minimum:
        raise NbdError(export=export.name, reason=f"the server told impossible sizes: {export}")


def _option_reply(connection: socket.socket, name: str) -> tuple[int, bytes]:
    magic, option, kind, length = _OPTION_REPLY.unpack(_receive(connection, _OPTION_REPLY.size, name))
    if magic != _OPTION_REPLY_MAGIC or option != _OPT_GO or length > _MAX_REPLY:
        raise NbdError(export=name, reason="the server broke the protocol in its answer to NBD_OPT_GO")
    return kind, _receive(connection, length, name)


def _send(connection: socket.socket, data: bytes, name: str) -> None:
    try:
        connection.sendall(data)
    except OSError as error:
        raise NbdError(export=name, reason=f"the server cannot be written to: {error}") from error


def _receive(connection: socket.socket, size: int, name: str) -> bytes:
    data = bytearray(size)
    view, done = memoryview(data), 0
    while done < size:
        try:
            count = connection.recv_into(view[done:])
        except OSError as error:
            raise NbdError(export=name, reason=f"the server does not answer: {error}") from error
        if not count:
            raise NbdError(export=name, reason="the server closed the connection")
        done += count
    return bytes(data)


class NbdReader:
    """Random access to an export, over a connection after :func:`handshake`; owns the connection."""

    def __init__(self, connection: socket.socket, export: Export) -> None:
        self._connection, self._export = connection, export
        self._cookie = 0

    @property
    def size(self) -> int:
        """Bytes of the whole disk."""
        return self._export.size

    def pread(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset``; fewer only at the end of the disk.

        :raises OSError: the server could not read its image
        :raises NbdError: the server is gone
        """
        end = min(offset + size, self.size)
        if size <= 0 or offset < 0 or offset >= end:
            return b""
        block = self._export.minimum_block
        start, stop = offset - offset % block, min(-(-end // block) * block, self.size)
        step = max(min(_MAX_READ, self._export.maximum_block) // block * block, block)
        parts = [self._read(min(step, stop - place), place) for place in range(start, stop, step)]
        return b"".join(parts)[offset - start : end - start]

    def _read(self, size: int, offset: int) -> bytes:
        name = self._export.name
        self._cookie += 1
        _send(self._connection, _REQUEST.pack(_REQUEST_MAGIC, 0, _CMD_READ, self._cookie, offset, size), name)
        magic, error, cookie = _REPLY.unpack(_receive(self._connection, _REPLY.size, name))
        if magic != _REPLY_MAGIC or cookie != self._cookie:
            raise NbdError(export=name, reason="the server broke the protocol in its answer to a read")
        if error:
            raise OSError(error, os.strerror(error), f"NBD export {name}, {size} bytes at {offset}")
        return _receive(self._connection, size, name)

    def close(self) -> None:
        """Say goodbye and close; twice is fine, and so is a server that is gone."""
        if self._connection.fileno() < 0:
            return
        try:
            self._connection.sendall(_REQUEST.pack(_REQUEST_MAGIC, 0, _CMD_DISC, 0, 0, 0))
        except OSError:
            pass  # the server is gone: there is nobody to take leave of
        finally:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
