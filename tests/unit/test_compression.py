"""Compressed files: told by content, unpacked in bounded pieces, refused where they are not sound."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import zlib
from typing import Any

import pytest

from pytest_imagemount import compression
from pytest_imagemount.compression import HEAD_SIZE, PIECE, compression_of, unpack
from pytest_imagemount.errors import CapabilityMissing, ImageInvalid
from pytest_imagemount.programs import environment, find_program

KINDS = [
    "gzip",
    "bzip2",
    "xz",
    pytest.param("zstd", marks=pytest.mark.needs("zstd")),
    pytest.param("lz4", marks=pytest.mark.needs("lz4")),
]
CONTENT = b"".join(zlib.crc32(bytes([n % 256, n // 256])).to_bytes(4, "big") * 9 for n in range(20_000)) + bytes(
    3 * PIECE
)


def compress(kind: str, content: bytes) -> bytes:
    if kind == "gzip":
        return gzip.compress(content, mtime=0)
    if kind == "bzip2":
        return bz2.compress(content)
    if kind == "xz":
        return lzma.compress(content)
    program = find_program(kind)
    assert program
    return subprocess.run(
        [program, "-q", "-c"], input=content, capture_output=True, check=True, env=environment()
    ).stdout


def unpacked(data: bytes, kind: str) -> bytes:
    fd = os.memfd_create("compressed")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        pieces = list(unpack(fd, kind, "disk.img"))
        assert all(0 < len(piece) <= PIECE for piece in pieces)
        return b"".join(pieces)
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_compressed_comes_out_again(kind: str) -> None:
    data = compress(kind, CONTENT)
    assert compression_of(data[:HEAD_SIZE]) == kind
    assert unpacked(data, kind) == CONTENT


@pytest.mark.parametrize("kind", KINDS)
def test_members_follow_each_other(kind: str) -> None:
    parts = [CONTENT[:100], CONTENT, b"", CONTENT[-5:]]
    assert unpacked(b"".join(compress(kind, part) for part in parts), kind) == b"".join(parts)


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("zeros", [4, 512, 1 << 20])
def test_zeros_may_follow_and_stand_between(kind: str, zeros: int) -> None:
    data = compress(kind, CONTENT) + bytes(zeros)
    assert unpacked(data + data, kind) == CONTENT * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [5, 100, -1])
def test_a_file_that_ends_early_is_an_error(kind: str, cut: int) -> None:
    with pytest.raises(ImageInvalid, match=f"'disk.img': its {kind} data is not sound: .*; get a whole copy"):
        unpacked(compress(kind, CONTENT)[:cut], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_fit_its_checksum_is_an_error(kind: str) -> None:
    data = bytearray(compress(kind, os.urandom(200_000)))
    data[len(data) // 2] ^= 0x10
    with pytest.raises(ImageInvalid, match="is not sound"):
        unpacked(bytes(data), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_something_else_behind_the_end_is_an_error(kind: str) -> None:
    with pytest.raises(ImageInvalid, match="is not sound"):
        unpacked(compress(kind, CONTENT) + b"signature of somebody", kind)


def test_an_xz_that_wants_too_much_memory_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_MEMORY", 1 << 20)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 4 << 20}]
    with pytest.raises(ImageInvalid, match="Memory usage limit"):
        unpacked(lzma.compress(CONTENT, filters=filters), "xz")


@pytest.mark.needs("zstd")
def test_a_zstd_that_wants_too_much_memory_is_an_error() -> None:
    # A frame with a window of 1 GiB (descriptor 20 << 3) and one empty block (RFC 8878, 3.1.1).
    frame = b"\x28\xb5\x2f\xfd" + bytes([0, 20 << 3]) + b"\x01\0\0"
    with pytest.raises(ImageInvalid, match=r"[Mm]emory"):
        unpacked(frame, "zstd")
    assert unpacked(frame.replace(b"\xa0", b"\x88"), "zstd") == b""


@pytest.mark.parametrize("kind", ["zstd", "lz4"])
def test_a_program_that_is_missing_is_named_with_its_package(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "find_program", lambda name: None)
    with pytest.raises(CapabilityMissing, match=f"there is no program {kind}; install package {kind}") as caught:
        unpacked(b"", kind)
    assert caught.value.capability == kind


@pytest.mark.needs("zstd")
def test_no_program_is_left_when_nobody_wants_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*arguments, **options))
        return started[-1]

    data = compress("zstd", bytes(64 << 20))
    monkeypatch.setattr(subprocess, "Popen", start)
    fd = os.memfd_create("compressed")
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    pieces = unpack(fd, "zstd", "disk.img")
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert [process.returncode is not None for process in started] == [True]
    os.close(fd)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\0" * 16,
        b"BZh9 a text of bytes",
        b"BZh0" + b"1AY&SY",
        b"\x1f\x8b\x09",
        b"\x50\x2a\x4d\x18",
        b"QFI\xfb\0\0\0\3",
    ],
)
def test_other_content_is_not_compressed(head: bytes) -> None:
    assert compression_of(head) is None
