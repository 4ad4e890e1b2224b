from __future__ import annotations

import ctypes
import json
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_imagemount.engine import superblock
from pytest_imagemount.engine.reader import FileReader, Window
from pytest_imagemount.engine.superblock import AMBIVALENT, Superblock, probe, probe_on, probe_reader
from pytest_imagemount.engine.volume_places import metadata_windows
from pytest_imagemount.errors import CapabilityMissing, DeviceFailed
from pytest_imagemount.programs import run

from .disks import BytesReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs("libblkid")

UUID = "2567a004-aacf-467e-a0ce-58dfa02a0aae"
MIB = 1 << 20


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Make a sparse file, run a program on it, open it."""
    opened: list[int] = []

    def make(size: int, *argv: str) -> int:
        path = tmp_path / f"{len(opened)}.img"
        path.touch()
        os.truncate(path, size)
        if argv:
            run([*argv, str(path)])
        opened.append(os.open(path, os.O_RDWR))
        return opened[-1]

    yield make
    for fd in opened:
        os.close(fd)


def both(fd: int, window: Window) -> Superblock | None:
    """What both ways of probing say, which must be the same."""
    direct = probe(fd, window)
    reader = FileReader(fd, os.fstat(fd).st_size)
    assert probe_reader(reader, window) == probe_on(reader, window) == direct
    return direct


@pytest.mark.needs("mke2fs")
def test_ext4_is_told_with_label_uuid_and_usage(make: Callable[..., int]) -> None:
    fd = make(8 * MIB, "mke2fs", "-q", "-t", "ext4", "-L", "Wurzel ä", "-U", UUID)
    found = both(fd, Window(0, 8 * MIB))
    assert found == Superblock("ext4", "filesystem", "Wurzel ä", UUID, "1.0")
    assert found.mountable


@pytest.mark.needs("mke2fs")
def test_a_file_system_in_the_middle_of_a_disk_is_found_by_its_window(make: Callable[..., int]) -> None:
    fd = make(32 * MIB, "mke2fs", "-q", "-t", "ext2", "-L", "inner", "-E", f"offset={9 * MIB}", "-F", "-b", "1024")
    assert both(fd, Window(0, 32 * MIB)) is None
    found = both(fd, Window(9 * MIB, 8 * MIB))
    assert found is not None
    assert (found.type, found.label) == ("ext2", "inner")


@pytest.mark.needs("mkfs.vfat")
def test_a_fat32_label_that_lies_far_inside_is_read(make: Callable[..., int]) -> None:
    fd = make(2048 * MIB, "mkfs.vfat", "-F", "32", "-s", "1", "-n", "FARINSIDE", "-i", "1a2b3c4d")
    found = both(fd, Window(0, 2048 * MIB))
    assert found == Superblock("vfat", "filesystem", "FARINSIDE", "1A2B-3C4D", "FAT32")


@pytest.mark.needs("mkswap")
def test_swap_is_not_mountable(make: Callable[..., int]) -> None:
    fd = make(4 * MIB, "mkswap", "--label", "paging", "--uuid", UUID)
    found = both(fd, Window(0, 4 * MIB))
    assert found == Superblock("swap", "other", "paging", UUID, "1")
    assert not found.mountable


def test_luks_is_of_usage_crypto(make: Callable[..., int]) -> None:
    fd = make(4 * MIB)
    os.pwrite(fd, b"LUKS\xba\xbe\0\x01".ljust(168, b"\0") + UUID.encode(), 0)
    found = both(fd, Window(0, 4 * MIB))
    assert found == Superblock("crypto_LUKS", "crypto", None, UUID, "1")
    assert not found.mountable


def test_members_of_volumes_are_told_as_such(make: Callable[..., int]) -> None:
    lvm = make(4 * MIB)
    label = b"LABELONE" + struct.pack("<QII8s", 1, 0, 32, b"LVM2 001") + b"a" * 32
    os.pwrite(lvm, label, 512)
    found = both(lvm, Window(0, 4 * MIB))
    assert found is None  # the checksum is missing
    checksum = _lvm_checksum((label[20:] + bytes(512))[: 512 - 20])
    os.pwrite(lvm, label[:16] + struct.pack("<I", checksum) + label[20:], 512)
    found = both(lvm, Window(0, 4 * MIB))
    assert found is not None
    assert (found.type, found.usage, found.mountable) == ("LVM2_member", "raid", False)
    raid = make(4 * MIB)
    superblock = struct.pack("<III4x16s32sQII", 0xA92B4EFC, 1, 0, bytes(range(16)), b"host:0", 0, 1, 0)
    os.pwrite(raid, superblock.ljust(144, b"\0") + struct.pack("<Q", 8), 4096)
    found = both(raid, Window(0, 4 * MIB))
    assert found is not None
    assert (found.type, found.usage, found.label, found.version) == ("linux_raid_member", "raid", "host:0", "1.2")


def _lvm_checksum(data: bytes) -> int:
    """CRC-32 as LVM uses it: started from another value, and not inverted."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


@pytest.mark.needs("mkfs.btrfs")
def test_btrfs_is_told(make: Callable[..., int]) -> None:
    fd = make(128 * MIB, "mkfs.btrfs", "-q", "-L", "tree", "-U", UUID)
    found = both(fd, Window(0, 128 * MIB))
    assert found is not None
    assert (found.type, found.label, found.uuid, found.mountable) == ("btrfs", "tree", UUID, True)


def test_zeros_and_nothing_are_no_superblock(make: Callable[..., int]) -> None:
    fd = make(MIB)
    assert both(fd, Window(0, MIB)) is None
    assert both(fd, Window(0, 0)) is None
    assert both(fd, Window(0, 1)) is None


@pytest.mark.needs("mke2fs")
def test_two_file_systems_at_once_are_ambivalent(make: Callable[..., int]) -> None:
    fd = make(8 * MIB, "mke2fs", "-q", "-t", "ext4", "-U", UUID)
    os.pwrite(fd, b"hsqs" + bytes(24) + struct.pack("<HH", 4, 0), 0)
    found = both(fd, Window(0, 8 * MIB))
    assert found is not None
    assert found.usage == AMBIVALENT
    assert not found.mountable


@pytest.mark.needs("mke2fs")
def test_a_label_that_is_no_utf8_is_escaped(make: Callable[..., int]) -> None:
    # ext2 without checksums, so that the label can be written over by hand.
    fd = make(8 * MIB, "mke2fs", "-q", "-t", "ext2", "-O", "^metadata_csum")
    os.pwrite(fd, b"a\xff\x1bz", 1024 + 120)
    found = probe(fd, Window(0, 8 * MIB))
    assert found is not None
    assert found.label == "a\\xff\x1bz"


@pytest.mark.needs("mke2fs")
def test_a_window_beyond_the_file_is_an_error_of_ours(make: Callable[..., int]) -> None:
    fd = make(8 * MIB, "mke2fs", "-q", "-t", "ext4")
    with pytest.raises(DeviceFailed, match=r"disk\.img.*from byte 9437184"):
        probe(fd, Window(9 * MIB, MIB), image="disk.img")


def test_a_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(DeviceFailed):
            probe(fd, Window(0, MIB))
    finally:
        os.close(fd)


@pytest.mark.needs("mke2fs")
def test_the_offset_of_the_descriptor_stays(make: Callable[..., int]) -> None:
    fd = make(8 * MIB, "mke2fs", "-q", "-t", "ext4")
    os.lseek(fd, 4711, os.SEEK_SET)
    assert probe(fd, Window(0, 8 * MIB)) is not None
    assert os.lseek(fd, 0, os.SEEK_CUR) == 4711


@pytest.mark.needs("mke2fs")
def test_threads_that_probe_one_descriptor_do_not_mix_their_reads(make: Callable[..., int]) -> None:
    fd = make(16 * MIB, "mke2fs", "-q", "-t", "ext4", "-L", "first")
    second = make(8 * MIB, "mke2fs", "-q", "-t", "ext2", "-L", "second")
    os.truncate(fd, 24 * MIB)
    os.pwrite(fd, os.pread(second, 8 * MIB, 0), 16 * MIB)
    windows = {"first": Window(0, 16 * MIB), "second": Window(16 * MIB, 8 * MIB)}
    names = ["first", "second"] * 100
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda name: probe(fd, windows[name]), names))
    assert [one.label if one else None for one in found] == names


def test_a_missing_library_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, **kwargs: object) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", absent)
    superblock.libblkid.cache_clear()
    try:
        with pytest.raises(CapabilityMissing, match="libblkid1"):
            probe(0, Window(0, MIB))
    finally:
        superblock.libblkid.cache_clear()


def ntfs_boot_sector(*, per_cluster: int, table_cluster: int) -> bytes:
    head = b"\xeb\x52\x90NTFS    " + struct.pack("<HBH", 512, per_cluster, 0)
    return (head.ljust(48, b"\0") + struct.pack("<Q", table_cluster)).ljust(510, b"\0") + b"\x55\xaa"


def test_the_file_table_of_an_ntfs_is_among_the_places() -> None:
    disk = bytearray(8 * MIB)
    disk[MIB : MIB + 512] = ntfs_boot_sector(per_cluster=8, table_cluster=1000)
    places = list(metadata_windows(BytesReader(disk), Window(MIB, 7 * MIB)))
    assert places == [Window(0, MIB), Window(6 * MIB, MIB), Window(1000 * 4096, 64 << 10)]


@example(bytes(88) + struct.pack("<I", 1000 << 10).ljust(40, b"\0"), 1, b"EXFAT   ")
@given(st.binary(min_size=64, max_size=128), st.integers(1, 4 * MIB), st.sampled_from([b"NTFS    ", b"EXFAT   ", b""]))
@settings(max_examples=300, deadline=1000)
def test_places_lie_inside_whatever_a_boot_sector_points_at(head: bytes, size: int, oem: bytes) -> None:
    sector = bytearray(head.ljust(510, b"\0") + b"\x55\xaa")
    if oem:
        sector[3:11] = oem
    else:
        sector[82:87] = b"FAT32"
    for place in metadata_windows(BytesReader(bytes(sector) + bytes(4 * MIB - 512)), Window(0, size)):
        assert 0 <= place.offset < place.end <= size
        assert place.size <= MIB


@given(st.binary(max_size=2048), st.integers(0, 128 << 10))
@settings(max_examples=200, deadline=1000)
def test_any_bytes_give_a_value_or_none(noise: bytes, at: int) -> None:
    data = bytes(at) + noise + bytes(64 << 10)
    found = probe_reader(BytesReader(data), Window(0, len(data)))
    assert found is None or json.dumps(found.type)
