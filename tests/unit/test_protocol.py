from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.errors import RequestInvalid
from pytest_imagemount.helper import messages, protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

OPEN = protocol.Open(
    mount=1,
    name="disk.raw",
    source="/x/disk.raw",
    partition="LABEL=root",
    format=None,
    mode="ro",
    fstype=None,
    options=("noexec",),
    backend="auto",
    test="test_it",
    attach_only=False,
    partition_nodes=False,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        yield left, right


@pytest.mark.parametrize(
    "request_",
    [OPEN, protocol.Release(7), protocol.Status(), protocol.Configure(1, "gw0", 16, 0)],
    ids=lambda r: r.operation,
)
def test_requests_survive_the_way(request_: protocol.Request) -> None:
    wire = json.loads(json.dumps({**protocol.encode_request(request_), "sequence": 3}))
    assert protocol.decode_request(wire) == request_


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "run"},
        {"operation": None},
        {"mount": "1"},
        {"mount": True},
        {"mount": -1},
        {"mount": 1 << 63},
        {"partition": 1.5},
        {"partition": -(1 << 31)},
        {"partition": 1 << 31},
        {"overlay_size": -1},
        {"options": "noexec"},
        {"options": [1]},
        {"name": None},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_field_of_another_type_or_size_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid):
        protocol.decode_request({**protocol.encode_request(OPEN), **change})


def test_a_missing_field_is_refused() -> None:
    wire = protocol.encode_request(OPEN)
    del wire["source"]
    with pytest.raises(RequestInvalid, match="source"):
        protocol.decode_request(wire)


def test_descriptors_travel_and_are_close_on_exec(pair: tuple[socket.socket, socket.socket]) -> None:
    reading, writing = os.pipe()
    messages.send(pair[0], {"a": 1}, (reading,))
    message, descriptors = messages.receive(pair[1])
    assert message == {"a": 1}
    assert not os.get_inheritable(descriptors[0])
    os.write(writing, b"x")
    assert os.read(descriptors[0], 1) == b"x"
    for descriptor in (reading, writing, *descriptors):
        os.close(descriptor)


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff", b"[" * 100_000, b"x" * (messages.MAX_MESSAGE + 10)])
def test_what_is_no_message_is_refused_and_keeps_no_descriptor(
    data: bytes, pair: tuple[socket.socket, socket.socket]
) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with Path(os.devnull).open("rb") as file:
        socket.send_fds(pair[0], [data], [file.fileno()])
    with pytest.raises(RequestInvalid):
        messages.receive(pair[1])
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_end_of_the_other_side_is_seen(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    assert messages.receive(pair[1]) == (None, [])


def test_the_peer_is_vouched_for_by_the_kernel(pair: tuple[socket.socket, socket.socket]) -> None:
    assert messages.peer(pair[0]) == (os.getpid(), os.geteuid())
