"""rpm's own database format ``ndb`` (``Packages.db``; SUSE): slots that point at blobs, all little endian.

Source: the comments in rpm's ``lib/backend/ndb/rpmpkg.c``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .reading import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..image_path import ImagePath

MOST_BYTES = 1 << 30
_PAGE_BYTES, _BLOCK_BYTES = 4096, 16
_SLOT = struct.Struct("<4sIII")  # magic, package number, first block, blocks
_FIRST_SLOT = 32
_BLOB = struct.Struct("<4sIII")  # magic, package number, generation, length
_HEADER = struct.Struct("<4sIII")  # magic, version, generation, pages of slots


def read_headers(path: ImagePath) -> Iterator[bytes]:
    """The header of each package, by number."""
    data = read_bytes(path, MOST_BYTES) or b""
    if len(data) < _FIRST_SLOT:
        raise ValueError("is truncated")
    magic, version, _, pages = _HEADER.unpack_from(data)
    if magic != b"RpmP" or version != 0:
        raise ValueError(f"has magic {magic!r} and version {version}, not b'RpmP' and 0")
    end = pages * _PAGE_BYTES
    if end > len(data):
        raise ValueError(f"is truncated: {pages} pages of slots are not in its {len(data)} bytes")
    slots = (_SLOT.unpack_from(data, offset) for offset in range(_FIRST_SLOT, end, _SLOT.size))
    used = sorted((number, block) for magic, number, block, _ in slots if magic == b"Slot" and block)
    left = len(data)
    for number, block in used:
        offset = block * _BLOCK_BYTES
        if offset + _BLOB.size > len(data):
            raise ValueError(f"is truncated before package number {number}")
        magic, own_number, _, length = _BLOB.unpack_from(data, offset)
        if magic != b"BlbS" or own_number != number or offset + _BLOB.size + length > len(data):
            raise ValueError(f"has no whole package number {number} where its slot says")
        left -= length
        if left < 0:
            raise ValueError("has packages that lie over each other")
        yield data[offset + _BLOB.size : offset + _BLOB.size + length]
