"""Fuzzing the unpacking of compressed files."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
from typing import TYPE_CHECKING

from pytest_imagemount.compression import HEAD_SIZE, PIECE, compression_of, unpack
from pytest_imagemount.errors import ImageMountError

if TYPE_CHECKING:
    from collections.abc import Callable

_ENOUGH = 4 << 20


def seeds() -> dict[str, bytes]:
    """Compressed files of one and two members, by name."""
    found: dict[str, bytes] = {}
    programs: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
    for name, compress in programs.items():
        one, two = compress(b"text" * 300), compress(bytes(100_000))
        found |= {name: one, f"{name} of zeros": two, f"{name} of two": one + bytes(512) + two}
    return found


def fuzz_one(data: bytes) -> None:
    """Unpack ``data``.

    :raises AssertionError: it came in pieces that are too large, or none
    """
    kind = compression_of(data[:HEAD_SIZE])
    if kind not in ("gzip", "bzip2", "xz"):
        return
    fd = os.memfd_create("compressed")
    told = ""
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        total = 0
        for piece in unpack(fd, kind, "fuzzed.img"):
            assert 0 < len(piece) <= PIECE
            total += len(piece)
            if total > _ENOUGH:
                break
    except ImageMountError as error:
        told = str(error)
    finally:
        os.close(fd)
    assert told.isprintable()
