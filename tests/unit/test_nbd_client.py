"""The NBD client against a server that plays its part byte by byte. Source: the NBD project's doc/proto.md."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.nbd.client import Export, NbdError, NbdReader, handshake, open_export

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Script = Callable[[socket.socket], None]

GREETING = b"NBDMAGICIHAVEOPT\x00\x03"
ACK = b"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00"
DISK = bytes(range(256)) * 32


def reply(kind: int, body: bytes, *, option: int = 7, magic: int = 0x3E889045565A9) -> bytes:
    return struct.pack(">QIII", magic, option, kind, len(body)) + body


def export_info(size: int, flags: int) -> bytes:
    return reply(3, struct.pack(">HQH", 0, size, flags))


def block_info(minimum: int, preferred: int, maximum: int) -> bytes:
    return reply(3, struct.pack(">HIII", 3, minimum, preferred, maximum))


def receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (part := connection.recv(size - len(data))):
        data += part
    return data


@contextmanager
def served_by(script: Script) -> Iterator[socket.socket]:
    """The client's end of a connection whose server runs ``script`` and then hangs up."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)
    failures: list[BaseException] = []

    def run() -> None:
        with theirs:
            try:
                script(theirs)
            except ConnectionError:
                pass  # the client has hung up
            except Exception as error:  # noqa: BLE001 - handed to the test
                failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        with ours:
            yield ours
    finally:
        thread.join()
    assert not failures, failures


def answering(*replies: bytes, greeting: bytes = GREETING) -> Script:
    """A server that greets, reads one request for export ``disk`` and answers."""

    def script(connection: socket.socket) -> None:
        connection.sendall(greeting)
        receive(connection, 4 + 16 + 4 + len("disk") + 4)
        connection.sendall(b"".join(replies))

    return script


def test_the_handshake_sends_exactly_the_bytes_of_the_protocol() -> None:
    sent = []

    def server(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        sent.append(receive(connection, 4 + 16 + 4 + 4 + 4))
        connection.sendall(export_info(1 << 20, 0x16D) + block_info(1, 4096, 1 << 25) + ACK)

    with served_by(server) as connection:
        export = handshake(connection, "disk")
    flags, go = b"\x00\x00\x00\x03", b"IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x0c"
    assert sent == [flags + go + b"\x00\x00\x00\x04disk\x00\x01\x00\x03"]
    assert export == Export("disk", 1 << 20, 0x16D, 1, 4096, 1 << 25)
    assert not export.readonly


def test_the_acknowledgement_of_the_protocol_is_what_this_file_says() -> None:
    assert reply(1, b"") == ACK


def test_a_server_that_tells_no_block_sizes_has_the_protocols_own() -> None:
    with served_by(answering(export_info(512, 0b11), ACK)) as connection:
        export = handshake(connection, "disk")
    assert (export.minimum_block, export.preferred_block, export.maximum_block) == (1, 4096, 32 << 20)
    assert export.readonly


def test_information_that_was_not_asked_for_is_passed_over() -> None:
    name_info = reply(3, struct.pack(">H", 1) + b"disk")
    with served_by(answering(name_info, export_info(512, 1), reply(3, b""), ACK)) as connection:
        assert handshake(connection, "disk").size == 512


@pytest.mark.parametrize(
    ("code", "text"),
    [(6, "it has no export of that name"), (5, "it demands TLS"), (2, "its policy forbids it"), (77, "error 77")],
)
def test_a_refusal_is_told_in_words(code: int, text: str) -> None:
    refusal = reply(1 << 31 | code, b"because")
    with served_by(answering(refusal)) as connection, pytest.raises(NbdError) as caught:
        handshake(connection, "disk")
    assert str(caught.value) == f"NBD export 'disk': the server refused: {text} (because)"


@pytest.mark.parametrize(
    "greeting",
    [
        pytest.param(b"NBDMAGIC\x00\x00\x42\x02\x81\x86\x12\x53\x00\x01", id="oldstyle"),
        pytest.param(b"NBDMAGICIHAVEOPT\x00\x02", id="newstyle-not-fixed"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2", id="another-protocol"),
    ],
)
def test_another_server_is_refused(greeting: bytes) -> None:
    def server(connection: socket.socket) -> None:
        connection.sendall(greeting)

    with served_by(server) as connection, pytest.raises(NbdError, match="not a fixed-newstyle NBD server"):
        handshake(connection, "disk")


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(reply(1, b"", magic=7), id="magic"),
        pytest.param(reply(1, b"", option=1), id="another-option"),
        pytest.param(struct.pack(">QIII", 0x3E889045565A9, 7, 3, 1 << 30), id="a-gigabyte"),
    ],
)
def test_a_broken_option_reply_is_refused(broken: bytes) -> None:
    with served_by(answering(broken)) as connection, pytest.raises(NbdError, match="broke the protocol"):
        handshake(connection, "disk")


def test_a_server_that_acknowledges_without_a_size_is_refused() -> None:
    with served_by(answering(ACK)) as connection, pytest.raises(NbdError, match="did not tell the size"):
        handshake(connection, "disk")


@pytest.mark.parametrize(
    "replies",
    [
        (export_info(1 << 63, 1),),
        (export_info(512, 1), block_info(0, 4096, 1 << 25)),
        (export_info(512, 1), block_info(3, 4096, 1 << 25)),
        (export_info(512, 1), block_info(1 << 20, 1 << 20, 1 << 25)),
        (export_info(512, 1), block_info(4096, 4096, 512)),
    ],
)
def test_impossible_sizes_are_refused(replies: tuple[bytes, ...]) -> None:
    with served_by(answering(*replies, ACK)) as connection, pytest.raises(NbdError, match="impossible sizes"):
        handshake(connection, "disk")


def test_a_server_that_hangs_up_is_told() -> None:
    with served_by(answering(ACK[:5])) as connection, pytest.raises(NbdError, match="closed the connection"):
        handshake(connection, "disk")


def test_no_server_at_the_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(NbdError, match="No such file or directory"):
        open_export(tmp_path / "nbd.sock", "disk")


def test_open_export_gives_a_socket_after_the_handshake(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        path = tmp_path / "s"
        listener.bind(os.fspath(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answering(export_info(1024, 1), ACK)(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        connection, export = open_export(path, "disk")
        thread.join()
        connection.close()
    assert (export.name, export.size) == ("disk", 1024)


class DiskServer:
    """Serves DISK; keeps what was asked."""

    def __init__(self, fail: int = 0, magic: int = 0x67446698, cookie_offset: int = 0) -> None:
        self.asked: list[tuple[int, int]] = []
        self.goodbye = b""
        self.fail, self.magic, self.cookie_offset = fail, magic, cookie_offset

    def __call__(self, connection: socket.socket) -> None:
        while request := receive(connection, 28):
            magic, flags, command, cookie, offset, size = struct.unpack(">IHHQQI", request)
            assert (magic, flags) == (0x25609513, 0)
            if command == 2:
                self.goodbye = request + connection.recv(1)
                return
            assert command == 0
            self.asked.append((offset, size))
            connection.sendall(struct.pack(">IIQ", self.magic, self.fail, cookie + self.cookie_offset))
            if not self.fail:
                connection.sendall(DISK[offset : offset + size])


def reader_of(connection: socket.socket, minimum: int = 1, maximum: int = 1 << 25) -> NbdReader:
    return NbdReader(connection, Export("disk", len(DISK), 1, minimum, 4096, maximum))


def test_reads_give_the_bytes_of_the_disk_and_stop_at_its_end() -> None:
    with served_by(DiskServer()) as connection, reader_of(connection) as reader:
        assert reader.size == len(DISK)
        assert reader.pread(10, 0) == DISK[:10]
        assert reader.pread(1000, 300) == DISK[300:1300]
        assert reader.pread(100, len(DISK) - 40) == DISK[-40:]


def test_reads_outside_the_disk_are_empty_and_ask_nothing() -> None:
    server = DiskServer()
    with served_by(server) as connection, reader_of(connection) as reader:
        assert [reader.pread(1, len(DISK)), reader.pread(0, 5), reader.pread(5, -1), reader.pread(-5, 9)] == [b""] * 4
    assert server.asked == []


def test_reads_are_aligned_to_the_servers_minimum_block() -> None:
    server = DiskServer()
    with served_by(server) as connection, reader_of(connection, minimum=512) as reader:
        assert reader.pread(100, 1000) == DISK[1000:1100]
        assert reader.pread(10, 512) == DISK[512:522]
    assert server.asked == [(512, 1024), (512, 512)]


def test_big_reads_are_cut_to_the_servers_maximum() -> None:
    server = DiskServer()
    with served_by(server) as connection, reader_of(connection, minimum=512, maximum=1500) as reader:
        assert reader.pread(3000, 100) == DISK[100:3100]
    assert server.asked == [(0, 1024), (1024, 1024), (2048, 1024), (3072, 512)]


def test_a_read_that_fails_is_an_oserror_with_the_servers_number() -> None:
    with served_by(DiskServer(fail=5)) as connection, reader_of(connection) as reader, pytest.raises(OSError) as caught:
        reader.pread(512, 0)
    assert caught.value.errno == errno.EIO
    assert "512 bytes at 0" in str(caught.value)


@pytest.mark.parametrize("server", [DiskServer(magic=1), DiskServer(cookie_offset=1)], ids=["magic", "cookie"])
def test_an_answer_to_another_question_is_refused(server: DiskServer) -> None:
    with served_by(server) as connection, reader_of(connection) as reader:
        with pytest.raises(NbdError, match="broke the protocol"):
            reader.pread(512, 0)


def test_close_says_goodbye_once() -> None:
    server = DiskServer()
    with served_by(server) as connection:
        reader = reader_of(connection)
        reader.close()
        reader.close()
    assert server.goodbye == b"\x25\x60\x95\x13\x00\x00\x00\x02" + bytes(20)


def test_close_copes_with_a_server_that_is_gone() -> None:
    with served_by(lambda connection: None) as connection:
        assert connection.recv(1) == b""
        reader_of(connection).close()
        assert connection.fileno() == -1
