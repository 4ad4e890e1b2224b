"""File systems that are not whole in their image, and would have the kernel open devices of the machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.further_devices import further_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def disk() -> Iterator[int]:
    fd = os.memfd_create("disk")
    os.ftruncate(fd, 1 << 20)
    yield fd
    os.close(fd)


def start_of(fd: int) -> Callable[[int], bytes]:
    return lambda size: os.pread(fd, size, 0)


def ext(fd: int, *, compat: int = 4, inode: int = 0, device: int = 0) -> None:
    os.pwrite(fd, b"\x53\xef", 1024 + 0x38)
    for offset, value in ((0x5C, compat), (0xE0, inode), (0xE4, device)):
        os.pwrite(fd, value.to_bytes(4, "little"), 1024 + offset)


def f2fs(fd: int, path: bytes, *, copy: int = 0) -> None:
    os.pwrite(fd, (0xF2F52010).to_bytes(4, "little"), 1024 + copy)
    os.pwrite(fd, path, 1024 + copy + 2201)


@pytest.mark.parametrize("fstype", ["ext2", "ext3", "ext4"])
def test_an_external_journal_is_told_by_its_number(disk: int, fstype: str) -> None:
    ext(disk, device=0x10300105)
    assert further_device(start_of(disk), fstype, ()) == "an external journal, block device 1:66309"
    assert further_device(start_of(disk), fstype, ("noload",)) is None
    assert further_device(start_of(disk), "xfs", ()) is None


@pytest.mark.parametrize("fields", [{"inode": 8}, {"inode": 8, "device": 0x701}, {"compat": 0, "device": 0x701}])
def test_a_journal_inside_is_none(disk: int, fields: dict[str, int]) -> None:
    ext(disk, **fields)
    assert further_device(start_of(disk), "ext4", ()) is None


@pytest.mark.parametrize("copy", [0, 4096])
def test_an_f2fs_on_several_devices_is_told(disk: int, copy: int) -> None:
    f2fs(disk, b"/dev/vda\x1b", copy=copy)
    assert further_device(start_of(disk), "f2fs", ()) == r"several devices, the first of which it calls '/dev/vda\\x1b'"


def test_an_f2fs_on_one_device_is_whole(disk: int) -> None:
    f2fs(disk, b"")
    f2fs(disk, b"", copy=4096)
    assert further_device(start_of(disk), "f2fs", ()) is None


@pytest.mark.parametrize("fstype", ["ext4", "f2fs"])
def test_a_device_of_a_few_bytes_names_none(fstype: str) -> None:
    fd = os.memfd_create("short")
    try:
        os.write(fd, bytes(1500))
        assert further_device(start_of(fd), fstype, ()) is None
    finally:
        os.close(fd)
