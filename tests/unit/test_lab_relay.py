"""The machine's end of the line, against a guest and a keeper that the test plays."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.errors import LabFailed
from pytest_imagemount.lab import frames, relay
from pytest_imagemount.lab.relay import LabTimeout, Relay
from pytest_imagemount.lab.streams import Streams

if TYPE_CHECKING:
    from collections.abc import Iterator

TIME = 5.0  # seconds, a bound that no passing test comes near


class Kernel:
    """A kernel without one: the guest's end of the line is ``guest``."""

    def __init__(self) -> None:
        self.line, self.guest = socket.socketpair()
        self.line.setblocking(False)
        self.guest.settimeout(TIME)
        self.status_fd, self.keeper = os.pipe()
        self._decoder = frames.Decoder()
        self._came: list[tuple[int, bytes]] = []

    def listen(self) -> bool:
        return not os.read(self.status_fd, 100)

    def failure(self, reason: str, hint: str) -> LabFailed:
        return LabFailed(reason=reason, hint=hint)

    def send(self, kind: int, payload: bytes = b"") -> None:
        self.guest.sendall(frames.encode(kind, payload))

    def receive(self) -> tuple[int, bytes]:
        """The next message of the relay."""
        while not self._came:
            data = self.guest.recv(65536)
            assert data, "the relay has closed the line"
            self._came += self._decoder.feed(data)
        return self._came.pop(0)

    def boot(self) -> bytes:
        """Play the guest until the command has started; the configuration that came."""
        self.send(frames.HELLO)
        config = b""
        while True:
            kind, payload = self.receive()
            if kind == frames.CONFIG_END:
                break
            assert kind == frames.CONFIG
            assert len(payload) <= frames.INPUT_WINDOW
            config += payload
            self.guest.sendall(frames.encode_ack(frames.CONFIG, len(payload)))
        self.send(frames.STARTED)
        return config

    def close(self) -> None:
        self.line.close()
        self.guest.close()
        for fd in (self.status_fd, self.keeper):
            os.close(fd)


class Caller:
    """The caller's streams, as pipes, and the relay running in a thread."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        pipes = [os.pipe() for _ in range(3)]
        self.stdin = pipes[0][1]
        self.stdout, self.stderr = pipes[1][0], pipes[2][0]
        self._theirs = pipes[0][0], pipes[1][1], pipes[2][1]
        self.result: int | BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self.config = os.urandom(5000)
        self.timeout: float = TIME

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        streams = Streams(*self._theirs, (False, False, False))
        try:
            deadline = time.monotonic() + self.timeout
            self.result = Relay(self._kernel, streams, self.config).run(deadline)  # type: ignore[arg-type]
        except (LabFailed, LabTimeout) as error:
            self.result = error

    def end(self) -> int | BaseException | None:
        self._thread.join(2 * TIME)
        assert not self._thread.is_alive()
        return self.result

    def close(self) -> None:
        for fd in (self.stdin, self.stdout, self.stderr, *self._theirs):
            with suppress(OSError):
                os.close(fd)


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.close()


@pytest.fixture
def caller(kernel: Kernel) -> Iterator[Caller]:
    caller = Caller(kernel)
    yield caller
    caller.end()
    caller.close()


def finish(kernel: Kernel, status: bytes = b"0") -> None:
    kernel.send(frames.ENDED, status)
    kernel.send(frames.CLEAN)


def read_all(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(fd, size - len(data))
    return data


def test_the_configuration_arrives_in_parts_that_the_line_holds(kernel: Kernel, caller: Caller) -> None:
    caller.start()
    assert kernel.boot() == caller.config
    finish(kernel, b"42")
    assert caller.end() == 42


def test_nothing_is_sent_before_the_guest_has_said_hello(kernel: Kernel, caller: Caller) -> None:
    caller.timeout = 0.2
    caller.start()
    assert isinstance(caller.end(), LabTimeout)
    kernel.guest.setblocking(False)
    with pytest.raises(BlockingIOError):
        kernel.guest.recv(1)


def test_streams_go_to_their_own_descriptors(kernel: Kernel, caller: Caller) -> None:
    caller.start()
    kernel.boot()
    kernel.send(frames.OUTPUT, b"out\0\r\n")
    kernel.send(frames.ERRORS, b"err")
    assert read_all(caller.stdout, 6) == b"out\0\r\n"
    assert read_all(caller.stderr, 3) == b"err"
    finish(kernel)
    assert caller.end() == 0


def test_room_is_given_back_only_for_what_was_written(kernel: Kernel, caller: Caller) -> None:
    caller.start()
    kernel.boot()
    size = 2 * frames.OUTPUT_WINDOW  # more than the pipe takes
    for _ in range(0, size, frames.CHUNK):
        kernel.send(frames.OUTPUT, bytes(frames.CHUNK))
    kernel.send(frames.ERRORS, b"not held up")
    assert read_all(caller.stderr, 11) == b"not held up"
    acknowledged = 0
    kernel.guest.settimeout(0.2)
    with suppress(TimeoutError):
        while True:
            kind, payload = kernel.receive()
            assert kind == frames.ACK
            stream, taken = frames.decode_ack(payload)
            assert stream == frames.OUTPUT
            acknowledged += taken
    assert 0 < acknowledged <= frames.OUTPUT_WINDOW
    assert read_all(caller.stdout, size) == bytes(size)
    finish(kernel)
    assert caller.end() == 0


def test_input_stops_at_the_window_and_goes_on_with_room(kernel: Kernel, caller: Caller) -> None:
    caller.start()
    kernel.boot()
    given = os.urandom(3 * frames.INPUT_WINDOW)
    os.write(caller.stdin, given)
    os.close(caller.stdin)
    came = b""
    kernel.guest.settimeout(0.2)
    with suppress(TimeoutError):
        while True:
            kind, payload = kernel.receive()
            assert kind == frames.INPUT
            came += payload
    assert len(came) == frames.INPUT_WINDOW
    kernel.guest.settimeout(TIME)
    kernel.guest.sendall(frames.encode_ack(frames.INPUT, len(came)))
    while True:
        kind, payload = kernel.receive()
        if kind == frames.INPUT_END:
            break
        came += payload
        kernel.guest.sendall(frames.encode_ack(frames.INPUT, len(payload)))
    assert came == given
    finish(kernel)
    assert caller.end() == 0


def test_a_reader_that_is_gone_closes_the_stream_inside(kernel: Kernel, caller: Caller) -> None:
    caller.start()
    kernel.boot()
    os.close(caller.stdout)
    kernel.send(frames.OUTPUT, b"for nobody")
    assert kernel.receive() == (frames.CLOSE, bytes((frames.OUTPUT,)))
    finish(kernel, b"141")
    assert caller.end() == 141


def test_a_kernel_that_ends_before_its_command_is_an_error_after_its_output(kernel: Kernel, caller: Caller) -> None:
    caller.start()
    kernel.boot()
    kernel.send(frames.OUTPUT, b"last words")
    kernel.guest.close()
    error = caller.end()
    assert isinstance(error, LabFailed)
    assert "ended before the command did" in str(error)
    assert read_all(caller.stdout, 10) == b"last words"


def test_a_kernel_that_ends_before_it_is_up_is_another_error(kernel: Kernel, caller: Caller) -> None:
    caller.start()
    kernel.guest.close()
    assert "did not come up" in str(caller.end())


def test_a_kernel_that_ends_after_its_command_leaves_the_status(kernel: Kernel, caller: Caller) -> None:
    caller.start()
    kernel.boot()
    kernel.send(frames.ENDED, b"3")
    kernel.guest.close()
    assert caller.end() == 3


def test_a_set_up_that_failed_is_told(kernel: Kernel, caller: Caller) -> None:
    caller.start()
    kernel.send(frames.HELLO)
    kernel.send(frames.FAILED, b"/folder: Permission denied")
    assert "could not be set up: /folder: Permission denied" in str(caller.end())


def test_a_boot_has_a_time_limit_of_its_own(kernel: Kernel, caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_BOOT_TIMEOUT", 0.1)
    caller.start()
    assert "did not come up within" in str(caller.end())


def test_a_kernel_that_does_not_finish_is_given_up_with_a_warning(
    kernel: Kernel, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_SETTLE_TIMEOUT", 0.1)
    caller.start()
    kernel.boot()
    kernel.send(frames.ENDED, b"0")
    began = time.monotonic()
    assert caller.end() == 0
    assert time.monotonic() - began < TIME / 2
    assert b"may be missing" in os.read(caller.stderr, 1000)


def test_mounts_that_stayed_are_named(kernel: Kernel, caller: Caller) -> None:
    caller.start()
    kernel.boot()
    kernel.send(frames.ENDED, b"0")
    kernel.send(frames.CLEAN, b"/mnt/a\n/mnt/b")
    assert caller.end() == 0
    assert b"could not be unmounted, and was lost with the kernel: /mnt/a, /mnt/b" in os.read(caller.stderr, 1000)
