"""Generic netlink: the bytes of messages, and the NBD commands against a kernel that is played."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_imagemount.engine.nbd import netlink
from pytest_imagemount.engine.nbd.netlink import Message, NbdNetlink

FAMILY = 0x22
LITTLE = sys.byteorder == "little"
little_endian = pytest.mark.skipif(not LITTLE, reason="the bytes are written out for little-endian machines")


def number(value: int, size: int) -> bytes:
    return value.to_bytes(size, sys.byteorder)


@little_endian
def test_the_bytes_of_attributes() -> None:
    assert netlink.u32(1, 7) == b"\x08\x00\x01\x00\x07\x00\x00\x00"
    assert netlink.u64(2, 1 << 32) == b"\x0c\x00\x02\x00\x00\x00\x00\x00\x01\x00\x00\x00"
    assert netlink.text(10, "ab") == b"\x07\x00\x0a\x00ab\x00\x00"
    assert netlink.text(2, "nbd") == b"\x08\x00\x02\x00nbd\x00"
    assert netlink.attribute(3, b"") == b"\x04\x00\x03\x00"
    assert netlink.nested(7, netlink.u32(1, 5)) == b"\x0c\x00\x07\x80\x08\x00\x01\x00\x05\x00\x00\x00"


@little_endian
def test_the_bytes_of_a_request() -> None:
    header = b"\x1c\x00\x00\x00\x22\x00\x05\x00\x09\x00\x00\x00\x00\x00\x00\x00"
    assert netlink.request(FAMILY, 2, 9, netlink.u32(1, 3)) == header + b"\x02\x01\x00\x00" + netlink.u32(1, 3)


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40))))
def test_attributes_come_back_as_they_were_written(attributes: list[tuple[int, bytes]]) -> None:
    data = b"".join(netlink.attribute(kind, payload) for kind, payload in attributes)
    assert list(netlink.parse_attributes(data)) == attributes


def test_the_nested_flag_is_no_part_of_the_type() -> None:
    assert list(netlink.parse_attributes(netlink.nested(7, netlink.u32(1, 5)))) == [(7, netlink.u32(1, 5))]


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_an_attribute_that_points_outside_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="netlink attribute"):
        list(netlink.parse_attributes(struct.pack("=HHI", length, 1, 0)))


@pytest.mark.parametrize("length", [0, 15, 21, 0xFFFFFFFF])
def test_a_message_that_points_outside_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="netlink message"):
        list(netlink.parse_messages(struct.pack("=IHHIII", length, 2, 0, 1, 0, 0)))


def test_two_messages_in_one_datagram_are_two() -> None:
    data = struct.pack("=IHHII4s", 18, FAMILY, 0, 1, 0, b"ab") + struct.pack("=IHHII", 16, 2, 0, 5, 0)
    assert list(netlink.parse_messages(data)) == [Message(FAMILY, 0, 1, b"ab"), Message(2, 0, 5, b"")]


@given(st.binary(max_size=200))
def test_noise_is_parsed_or_refused_and_nothing_else(data: bytes) -> None:
    for parse in (netlink.parse_messages, netlink.parse_attributes):
        with suppress(ValueError):
            list(cast("Any", parse)(data))


def acknowledgement(code: int, text: str = "", *, capped: bool = True, serial: int = 2) -> bytes:
    """The kernel's NLMSG_ERROR, with its extended text, repeating the request whole or only its header."""
    request = netlink.request(FAMILY, 1, serial, netlink.u32(1, 0))
    repeated = request[:16] if capped else request
    flags = (0x100 if capped else 0) | (0x200 if text else 0)
    body = struct.pack("=i", -code) + repeated + (netlink.text(1, text) if text else b"")
    return struct.pack("=IHHII", 16 + len(body), 2, flags, serial, 0) + body


def test_success_is_no_error() -> None:
    (message,) = netlink.parse_messages(acknowledgement(0))
    assert netlink.acknowledgement_error(message) is None


@pytest.mark.parametrize("capped", [True, False])
def test_the_kernels_own_text_is_part_of_the_error(capped: bool) -> None:
    (message,) = netlink.parse_messages(acknowledgement(errno.EINVAL, "bad socket", capped=capped))
    error = netlink.acknowledgement_error(message)
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror) == (errno.EINVAL, "Invalid argument (bad socket)")


def test_an_error_without_text_is_the_errors_name() -> None:
    (message,) = netlink.parse_messages(acknowledgement(errno.EBUSY))
    error = netlink.acknowledgement_error(message)
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror) == (errno.EBUSY, "Device or resource busy")


def answer(command: int, attributes: bytes, serial: int = 2) -> bytes:
    body = bytes([command, 1, 0, 0]) + attributes
    return struct.pack("=IHHII", 16 + len(body), FAMILY, 0, serial, 0) + body


class Kernel:
    """The socket, with a kernel behind it that says what it was told to say."""

    def __init__(self, *datagrams: bytes) -> None:
        self.datagrams = list(datagrams)
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> int:
        self.sent.append(data)
        return len(data)

    def recv(self, size: int) -> bytes:
        return self.datagrams.pop(0)

    def close(self) -> None:
        self.datagrams.clear()


def driver_of(kernel: Kernel) -> NbdNetlink:
    return NbdNetlink(cast("socket.socket", kernel), FAMILY)


def sent_attributes(kernel: Kernel) -> dict[int, bytes]:
    (message,) = netlink.parse_messages(kernel.sent[-1])
    return dict(netlink.parse_attributes(message.body[4:]))


def test_connect_sends_every_attribute_and_gives_the_kernels_index() -> None:
    kernel = Kernel(answer(1, netlink.u32(1, 7)), acknowledgement(0))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        index = driver_of(kernel).connect(
            7, connection=ours, size=1 << 33, block_size=4096, server_flags=0x16D, backend="id:1", timeout=60
        )
        descriptor = number(ours.fileno(), 4)
    assert index == 7
    assert kernel.sent[0][16] == 1
    assert sent_attributes(kernel) == {
        1: number(7, 4),
        2: number(1 << 33, 8),
        3: number(4096, 8),
        4: number(60, 8),
        5: number(0x16D, 8),
        6: number(0, 8),
        7: netlink.nested(1, netlink.attribute(1, descriptor)),
        8: number(0, 8),
        10: b"id:1\0",
    }


def test_reconfigure_repeats_the_backend() -> None:
    kernel = Kernel(acknowledgement(0))
    driver_of(kernel).reconfigure(3, client_flags=netlink.DISCONNECT_ON_CLOSE, backend="id:1")
    assert kernel.sent[0][16] == 3
    assert sent_attributes(kernel) == {1: number(3, 4), 6: number(2, 8), 10: b"id:1\0"}


def test_disconnect_names_the_device() -> None:
    kernel = Kernel(acknowledgement(0))
    driver_of(kernel).disconnect(5)
    assert kernel.sent[0][16] == 2
    assert sent_attributes(kernel) == {1: number(5, 4)}


def test_status_gives_every_device_that_the_kernel_lists() -> None:
    items = [
        netlink.attribute(1, netlink.u32(1, index) + netlink.attribute(2, bytes([connected])))
        for index, connected in ((0, 1), (9, 0))
    ]
    kernel = Kernel(answer(5, netlink.attribute(9, b"".join(items))), acknowledgement(0))
    assert driver_of(kernel).status() == {0: True, 9: False}


def test_a_refused_command_is_an_oserror() -> None:
    with pytest.raises(OSError, match=r"Device or resource busy \(in use\)") as caught:
        driver_of(Kernel(acknowledgement(errno.EBUSY, "in use"))).disconnect(1)
    assert caught.value.errno == errno.EBUSY


def test_answers_to_earlier_questions_are_passed_over() -> None:
    kernel = Kernel(acknowledgement(errno.EIO, serial=1), acknowledgement(0))
    driver_of(kernel).disconnect(1)
    assert kernel.datagrams == []


def test_a_kernel_without_the_family_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NbdNetlink, "_ask", _fail(errno.ENOENT))
    assert NbdNetlink.open() is None


def test_another_failure_to_find_the_family_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NbdNetlink, "_ask", _fail(errno.EPERM))
    with pytest.raises(PermissionError):
        NbdNetlink.open()


def _fail(code: int) -> Any:
    def ask(self: NbdNetlink, command: int, attributes: bytes) -> bytes:
        assert (command, attributes) == (3, netlink.text(2, "nbd"))
        raise OSError(code, "told to fail")

    return ask
