"""CRC-32C (Castagnoli), which zlib does not have and both btrfs and erofs use."""

from __future__ import annotations

from functools import cache

_POLYNOMIAL = 0x82F63B78


@cache
def _table() -> tuple[int, ...]:
    values = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
        values.append(byte)
    return tuple(values)


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """The register after ``data``, started from all ones and not inverted at the end."""
    table, register = _table(), 0xFFFFFFFF
    for byte in data:
        register = table[(register ^ byte) & 0xFF] ^ register >> 8
    return register
