"""Files that are written with holes, within a limit, and that leave room on their disk."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_imagemount.errors import UnpackFailed
from pytest_imagemount.sparse_file import SparseFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size + 1, 0)


@given(pieces=st.lists(st.tuples(st.sampled_from([0, 1, 255]), st.integers(0, 3 * MIB)), max_size=5))
def test_what_is_written_is_what_is_read(pieces: list[tuple[int, int]]) -> None:
    fd = os.memfd_create("target")
    file = SparseFile(fd, limit=64 * MIB, image="disk.img")
    for value, size in pieces:
        file.write(bytes([value]) * size)
    expected = b"".join(bytes([value]) * size for value, size in pieces)
    assert file.finish() == len(expected)
    assert content(fd) == expected
    os.close(fd)


def test_zeros_take_no_room(fd: int) -> None:
    file = SparseFile(fd, limit=64 * MIB, image="disk.img")
    file.write(b"x" + bytes(20 * MIB - 1))
    file.write(bytes(8 * MIB) + b"y")
    assert file.finish() == 28 * MIB + 1
    assert os.fstat(fd).st_blocks * 512 <= 64 << 10
    assert content(fd) == b"x" + bytes(28 * MIB - 1) + b"y"


def test_a_byte_more_than_the_limit_is_an_error(fd: int) -> None:
    file = SparseFile(fd, limit=MIB, image="disk.img")
    file.write(bytes(MIB))
    with pytest.raises(
        UnpackFailed, match=r"'disk.img' cannot be unpacked: it would take more than 1 MiB.*unpack-limit"
    ):
        file.write(b"\0")
    source = os.memfd_create("source")
    os.truncate(source, MIB + 1)
    with pytest.raises(UnpackFailed):
        SparseFile(fd, limit=MIB, image="disk.img").copy(source, MIB + 1, lambda done: None)
    os.close(source)


def test_some_room_is_left_on_the_disk(fd: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    room = SimpleNamespace(f_blocks=1 << 20, f_frsize=4096, f_bavail=(300 << 20) // 4096)
    monkeypatch.setattr(os, "fstatvfs", lambda fd: room)
    file = SparseFile(fd, limit=1 << 40, image="disk.img")
    for _ in range(60):
        file.write(b"x" * MIB)
    room.f_bavail = (260 << 20) // 4096  # a twentieth of 4 GiB, and the 64 MiB that are written between two looks
    with pytest.raises(UnpackFailed, match=f"no room for it in {tmp_path}: less than .* would be left free; make room"):
        file.write(b"x" * 60 * MIB)


def test_a_small_disk_is_used_but_for_a_twentieth(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    room = SimpleNamespace(f_blocks=(60 << 20) // 4096, f_frsize=4096, f_bavail=(30 << 20) // 4096)
    monkeypatch.setattr(os, "fstatvfs", lambda fd: room)
    file = SparseFile(fd, limit=1 << 40, image="disk.img")

    def write(pieces: int) -> None:
        for _ in range(pieces):
            file.write(b"x" * MIB)
            room.f_bavail -= MIB // 4096

    write(20)
    with pytest.raises(UnpackFailed, match=r"less than 3 MiB would be left free"):
        write(10)
    assert room.f_bavail >= (3 << 20) // 4096


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_told(fd: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(UnpackFailed, match=f"no room for it in {tmp_path}: {os.strerror(number)}"):
        SparseFile(fd, limit=1 << 40, image="disk.img").write(b"x" * MIB)


def test_another_failure_is_itself(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(errno.EIO, "bad disk")

    monkeypatch.setattr(os, "pwrite", refuse)
    with pytest.raises(OSError, match="bad disk") as caught:
        SparseFile(fd, limit=1 << 40, image="disk.img").write(b"x" * MIB)
    assert not isinstance(caught.value, UnpackFailed)


@pytest.mark.parametrize("by_kernel", ["all", "nothing", "refused"])
def test_copies_follow_each_other_with_their_holes(
    fd: int, tmp_path: Path, by_kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_kernel == "nothing":
        monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    elif by_kernel == "refused":

        def refuse(*arguments: object) -> int:
            raise OSError(errno.EXDEV, "not here")

        monkeypatch.setattr(os, "copy_file_range", refuse)
    one, two = tmp_path / "one", tmp_path / "two"
    with one.open("wb") as file:
        file.write(b"begin")
        file.seek(9 * MIB)
        file.write(b"end of one")
        file.truncate(10 * MIB + 3)
    two.write_bytes(b"two" * MIB)
    seen: list[int] = []
    target = SparseFile(fd, limit=1 << 40, image="disk.img")
    for path in (one, two, one):
        source = os.open(path, os.O_RDONLY)
        target.copy(source, os.fstat(source).st_size, seen.append)
        os.close(source)
    expected = one.read_bytes() + two.read_bytes() + one.read_bytes()
    assert target.finish() == len(expected)
    assert content(fd) == expected
    assert seen == sorted(seen)
    assert os.fstat(fd).st_blocks * 512 < 5 * MIB
