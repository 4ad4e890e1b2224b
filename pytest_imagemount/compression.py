"""Compressed files: told by their first bytes, and unpacked in pieces of bounded size.

gzip, bzip2 and xz are the standard library's. zstd and lz4 are the programs of that name: every distribution has them,
they work beside this process on another core, and what they may take in memory is an option of theirs. Python has its
own zstd from 3.14 only, and lz4 not at all.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from .errors import CapabilityMissing, ImageInvalid
from .programs import environment, find_program, not_found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HEAD_SIZE = 16
"""How many bytes :func:`compression_of` wants."""
PIECE = 1 << 20
"""Bytes of the largest piece that comes out at once."""
_READ = 256 << 10
_MEMORY = 512 << 20
"""Bytes that the window of xz or zstd may take: ``xz -9`` wants 65 MiB, ``zstd --ultra -22`` 128 MiB."""

_MAGIC = {
    b"\x1f\x8b\x08": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x02\x21\x4c\x18": "lz4",  # as older versions, and those for kernels, write it
}
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17rE8P\x90")
_COMMANDS = {
    "zstd": ("zstd", "--decompress", "--stdout", "--quiet", "--no-progress", f"--memory={_MEMORY >> 20}MB"),
    "lz4": ("lz4", "-d", "-c", "-q"),
}


class _Decompressor(Protocol):
    """What bz2 and lzma have: one member of a file is unpacked, a piece at a time."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = ...) -> bytes: ...


def compression_of(head: bytes) -> str | None:
    """What a file is compressed with that starts with ``head``: gzip, bzip2, xz, zstd, lz4, or None."""
    found = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    if found == "bzip2" and not (head[3:4] in b"123456789" and head[4:10] in _BZIP2_BLOCKS):
        return None
    return found


def unpack(fd: int, kind: str, image: str) -> Iterator[bytes]:
    """The unpacked content, in pieces, of the file open at ``fd``, which is read from where its offset is.

    All members, streams or frames of it follow each other, as the programs of each kind have it.

    :param image: the image's name, for messages
    :raises ImageInvalid: corrupt, truncated, or something else follows behind
    :raises CapabilityMissing: the program that it takes is not installed
    """
    if kind in _COMMANDS:
        return _by_program(fd, kind, image)
    return _by_library(fd, kind, image)


def _by_library(fd: int, kind: str, image: str) -> Iterator[bytes]:
    new, errors = _library(kind)
    data = os.read(fd, _READ)
    while data:
        member = new()
        try:
            while not member.eof:
                if member.needs_input and not data and not (data := os.read(fd, _READ)):
                    raise _invalid(image, kind, "the file ends in the middle of it")
                given, data = (data, b"") if member.needs_input else (b"", data)
                if piece := member.decompress(given, PIECE):
                    yield piece
        except errors as error:
            raise _invalid(image, kind, str(error)) from None
        # Zeros may follow: tapes pad with them, and xz aligns by them.
        data = member.unused_data.lstrip(b"\0")
        while len(data) < HEAD_SIZE and (more := os.read(fd, _READ)):
            data = (data + more).lstrip(b"\0")
        if data and compression_of(data[:HEAD_SIZE]) != kind:
            raise _invalid(image, kind, "something else follows behind its end")


def _library(kind: str) -> tuple[Callable[[], _Decompressor], tuple[type[Exception], ...]]:
    """What makes the decompressor of a member, and the errors that it raises."""
    if kind == "gzip":
        import zlib

        return _Gzip, (zlib.error,)
    if kind == "bzip2":
        import bz2

        return bz2.BZ2Decompressor, (OSError, EOFError)
    import lzma

    return (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MEMORY)), (lzma.LZMAError, EOFError)


class _Gzip:
    """zlib's decompressor with the manners of those of bz2 and lzma. Checksum and length are verified by zlib."""

    def __init__(self) -> None:
        import zlib

        self._zlib = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        # A piece of full length: there may be more to come from what it has read.
        return not self._full and not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = PIECE) -> bytes:
        piece = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self._full = len(piece) == max_length
        return piece


def _by_program(fd: int, kind: str, image: str) -> Iterator[bytes]:
    name, *options = _COMMANDS[kind]
    program = find_program(name)
    if program is None:
        reason = f"image {image!r} is compressed with {name}, and there is no program {name}"
        raise CapabilityMissing(capability=name, reason=reason, hint=not_found(name))
    import tempfile  # loaded late: most runs meet no compressed image

    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [program, *options], stdin=fd, stdout=subprocess.PIPE, stderr=said, env=environment(), bufsize=0
        )
        try:
            assert process.stdout is not None
            with suppress(OSError):  # the user's pipes may take no more room
                fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, PIECE)
            while piece := process.stdout.read(PIECE):
                yield piece
            status = process.wait()
        finally:
            # Also where the caller takes no more of it.
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if status:
            said.seek(0)
            words = said.read(4096).decode("utf-8", "backslashreplace").strip()
            raise _invalid(image, kind, words or f"{name} ended with status {status}")


def _invalid(image: str, kind: str, reason: str) -> ImageInvalid:
    return ImageInvalid(image=image, reason=f"its {kind} data is not sound: {reason}", hint="get a whole copy of it")
