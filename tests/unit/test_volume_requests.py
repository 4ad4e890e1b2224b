"""What callers say of volumes, and names by which what is made of them is known."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_imagemount.engine.volumes import dm, raid
from pytest_imagemount.engine.volumes.lvm import VolumeName
from pytest_imagemount.engine.volumes.subvolumes import subvolumes
from pytest_imagemount.engine.volumes.verity import HashTree, RootHash
from pytest_imagemount.engine.wanted import Wanted
from pytest_imagemount.errors import RequestInvalid
from pytest_imagemount.helper.descriptors import require_different
from pytest_imagemount.helper.leftovers import OurDevice
from pytest_imagemount.helper.volume_leftovers import is_volume
from pytest_imagemount.keys import Key

if TYPE_CHECKING:
    from pathlib import Path

ROOT = "0123456789abcdef" * 4
_SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6s256s")


def superblock(**fields: object) -> bytes:
    """A dm-verity superblock as veritysetup writes it."""
    values: dict[str, object] = {
        "signature": b"verity\0\0", "version": 1, "kind": 1, "uuid": bytes(16), "algorithm": b"sha256",
        "data": 4096, "hashes": 4096, "blocks": 100, "salt_size": 2, "padding": bytes(6), "salt": b"\xab\xcd",
    }  # fmt: skip
    return _SUPERBLOCK.pack(*{**values, **fields}.values())


def test_a_root_hash_names_partitions_by_its_halves() -> None:
    root = RootHash.parse(ROOT.upper())
    assert (root.digest, root.partition, root.offset) == (ROOT, None, None)
    assert root.data_uuid == "01234567-89ab-cdef-0123-456789abcdef" == root.hash_uuid


@pytest.mark.parametrize("kind", ["fifo", "folder", "missing", "empty", "zeros"])
def test_a_key_file_that_is_none_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    with pytest.raises(RequestInvalid, match=f"key_file='{path}'"):
        Key.of(None, path)


def test_listing_subvolumes_ends_behind_the_last_key_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_item(fd: int, request: int, argument: bytearray) -> int:
        struct.pack_into("=7Q3I", argument, 0, *[0] * 9, 1)
        struct.pack_into("=3Q2I", argument, 104, 0, 256, (1 << 64) - 1, 132, 0)  # a tree, whose offset is the largest
        return 0

    monkeypatch.setattr(fcntl, "ioctl", one_item)
    assert subvolumes(-1) == []


def test_a_root_hash_says_where_its_hashes_are() -> None:
    assert RootHash.parse(f"{ROOT}:3").partition == 3
    assert RootHash.parse(f"{ROOT}@8388608").offset == 8388608


@pytest.mark.parametrize(
    "text", ["", "xyz", ROOT[:30], ROOT + "0", f"{ROOT}:", f"{ROOT}@-1", f"{ROOT}:1@2", f"{ROOT}\n"]
)
def test_what_is_no_root_hash_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid, match="root hash in hexadecimal"):
        RootHash.parse(text)


def test_a_hash_tree_becomes_a_table() -> None:
    tree = HashTree.parse(superblock())
    assert tree is not None
    [target] = tree.targets("7:1", "7:2", 8192, ROOT)
    assert (target.start, target.length, target.kind) == (0, 800, "verity")
    assert target.parameters == f"1 7:1 7:2 4096 4096 100 3 sha256 {ROOT} abcd"
    unsalted = HashTree.parse(superblock(salt_size=0))
    assert unsalted is not None
    assert unsalted.targets("7:1", "7:2", 0, ROOT)[0].parameters.endswith(f"{ROOT} -")


@pytest.mark.parametrize(
    "fields",
    [
        {"signature": b"veritas\0"},
        {"version": 2},
        {"data": 0},
        {"data": 5000},
        {"hashes": 1 << 20},
        {"salt_size": 257},
        {"algorithm": b"sha256 7:0"},
        {"algorithm": b""},
    ],
)
def test_what_is_no_superblock_of_verity_is_none(fields: dict[str, object]) -> None:
    assert HashTree.parse(superblock(**fields)) is None


@given(st.binary(max_size=600))
def test_no_bytes_make_the_superblock_of_verity_fail(noise: bytes) -> None:
    HashTree.parse(noise)
    HashTree.parse(b"verity\0\0" + noise)


@pytest.mark.parametrize(
    "text", ["", "root", "vg/", "/root", "vg/root/x", "vg/../x y", "-vg/root", "vg/röot", "vg/root\n"]
)
def test_what_is_no_volume_name_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid, match="names of a volume group and a logical volume"):
        VolumeName.parse(text, "volume")


def test_a_partition_that_names_no_volume_is_shown_as_it_was_given() -> None:
    with pytest.raises(RequestInvalid, match=r"partition='lv:root': .* as in 'lv:debian/root'"):
        VolumeName.parse("lv:root", "partition", prefix="lv:")


def test_a_partition_may_name_a_volume() -> None:
    assert Wanted(partition="lv:vg/root").names_volume
    assert not Wanted(partition="LABEL=lv:").names_volume
    assert str(VolumeName.parse("vg-1/root.old", "volume")) == "vg-1/root.old"


def test_an_overlay_has_a_least_size() -> None:
    with pytest.raises(RequestInvalid, match="overlay_size"):
        Wanted(mode="overlay", overlay_size=0)


def test_names_tell_whose_a_mapping_or_an_array_is() -> None:
    mapping, array = dm.name_of("123-deadbeef:4", 2), raid.array_name("4194304-deadbeef:9999", 12)
    assert (mapping, array) == ("imagemount-123-deadbeef-4-2", "md_im-4194304-deadbeef-9999-12")
    assert len(array) < 32, "the kernel's bound"
    assert is_volume(OurDevice("dm-0", 4, mapping))
    assert is_volume(OurDevice(array, 9999, array))
    assert not is_volume(OurDevice("loop3", 4, "77"))
    assert not is_volume(OurDevice("nbd0", 4, "pytest-imagemount:123-deadbeef:4"))


def test_one_file_is_not_two_disks(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.touch()
    two.touch()
    fds = [os.open(path, os.O_RDONLY) for path in (one, two, one)]
    try:
        require_different([("one", fds[0]), ("two", fds[1])])
        with pytest.raises(RequestInvalid, match="the same file as 'one'"):
            require_different([("one", fds[0]), ("two", fds[1]), ("again", fds[2])])
    finally:
        for fd in fds:
            os.close(fd)
