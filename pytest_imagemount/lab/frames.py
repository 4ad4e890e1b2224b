"""The messages between the two ends of a lab: :mod:`.relay` on the machine, :mod:`.guest` in the kernel.

They travel over one serial line of the kernel, whose other end is a socket. A message is its kind (1 byte), the length
of its payload (4 bytes, little endian) and the payload.

No stream can hold up another, or the line: each has a window. Its sender may have that many bytes under way; the
receiver gives room back with ``ACK`` as the bytes reach their reader. So whatever is under way fits the buffers between
the two ends, and both always read.

The guest imports this module: every module that Python loads there costs some 10 ms, so it imports next to nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

OUTPUT_WINDOW = 1 << 16
"""Bytes of one stream of the guest that may be under way."""
INPUT_WINDOW = 2048
"""Bytes of one stream to the guest that may be under way.

The guest's terminal layer holds 4096 bytes and then throttles the line, and User-Mode Linux 6.1 forgets to take it up
again: with windows from 8 KiB on the line fell silent within 1 to 20 MB of input, with 3500 bytes never. The speed
is the same, 1 MB/s: the kernel reads a line byte by byte.
"""
ACK_STEP = OUTPUT_WINDOW // 4
"""Bytes for which the machine sends one ``ACK``: their number is bounded too, for the same reason."""
CHUNK = 1 << 14
"""Bytes that one message of a stream carries at most."""

# From the machine to the guest.
CONFIG = 1
INPUT = 2
INPUT_END = 3
RESIZE = 4
CLOSE = 5
CONFIG_END = 6
# From the guest to the machine.
HELLO = 16
OUTPUT = 17
ERRORS = 18
TERMINAL = 19
ENDED = 20
CLEAN = 21
FAILED = 22
STARTED = 23
# Both ways: the kind of the stream (1 byte), then the bytes taken (4 bytes).
ACK = 32

_HEADER = 5


def encode(kind: int, payload: bytes = b"") -> bytes:
    """The message as bytes."""
    return bytes((kind,)) + len(payload).to_bytes(4, "little") + payload


def encode_ack(kind: int, taken: int) -> bytes:
    """The message that gives the sender of stream ``kind`` room for ``taken`` bytes more."""
    return encode(ACK, bytes((kind,)) + taken.to_bytes(4, "little"))


def decode_ack(payload: bytes) -> tuple[int, int]:
    """Kind of the stream and number of bytes of an ``ACK``."""
    return payload[0], int.from_bytes(payload[1:], "little")


class Decoder:
    """Messages out of the bytes of the line, however these were cut."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The messages (kind, payload) that ``data`` completes."""
        held = self._held
        held += data
        while len(held) >= _HEADER:
            end = _HEADER + int.from_bytes(held[1:_HEADER], "little")
            if len(held) < end:
                return
            kind, payload = held[0], bytes(held[_HEADER:end])
            del held[:end]
            yield kind, payload
