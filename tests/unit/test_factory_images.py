"""Whole images: formats, sizes, sparseness, equal output, and what is left when a build fails."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_imagemount import programs
from pytest_imagemount.errors import ImageMountError, ProgramFailed, RequestInvalid
from pytest_imagemount.factory import FORMATS, ImageFactory, Partition, build_image
from pytest_imagemount.factory.staging import copy_sparse

from . import image_readers as read

MIB = 1 << 20
WEB01 = {"etc/hostname": "web01\n"}
needs_ext4 = pytest.mark.needs("mke2fs", "debugfs")
needs_qemu_img = pytest.mark.needs("qemu-img")


def qemu_info(image: Path) -> dict[str, Any]:
    found = json.loads(programs.run(["qemu-img", "info", "--output=json", str(image)]))
    assert isinstance(found, dict)
    return found


@needs_ext4
@needs_qemu_img
@pytest.mark.parametrize("format", [name for name in FORMATS if name != "raw"])
def test_every_format_holds_the_same_disk_as_raw(tmp_path: Path, format: str) -> None:
    disk: dict[str, Any] = {"table": "gpt", "partitions": [Partition(fstype="ext4", content=WEB01)]}
    raw = build_image(tmp_path / "disk.raw", **disk)
    image = build_image(tmp_path / "disk", format=format, **disk)
    info = qemu_info(image)
    # A raw image, and an old vpc one, can be taken for another by its content alone: name the format.
    assert info["format"] == format
    assert info["virtual-size"] == raw.stat().st_size
    programs.run(["qemu-img", "convert", "-f", format, "-O", "raw", str(image), str(tmp_path / "back.raw")])
    assert (tmp_path / "back.raw").read_bytes() == raw.read_bytes()


@needs_qemu_img
def test_format_options_reach_qemu_img(tmp_path: Path) -> None:
    options = {"compat": "0.10", "cluster_size": 4096}
    info = qemu_info(build_image(tmp_path / "disk", format="qcow2", size="1M", format_options=options))
    assert info["cluster-size"] == 4096
    assert info["format-specific"]["data"]["compat"] == "0.10"


@needs_qemu_img
def test_format_options_may_be_booleans(tmp_path: Path) -> None:
    options = {"lazy_refcounts": True}
    info = qemu_info(build_image(tmp_path / "disk", format="qcow2", size="1M", format_options=options))
    assert info["format-specific"]["data"]["lazy-refcounts"] is True


@needs_qemu_img
def test_a_format_option_that_qemu_does_not_know_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match="no_such_option") as caught:
        build_image(tmp_path / "disk", format="qcow2", size="1M", format_options={"no_such_option": 1})
    assert f"while building image {str(tmp_path / 'disk')!r}" in caught.value.__notes__
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"format": "iso"}, "is not one of: raw, qcow2"),
        ({"size": "1M", "format_options": {"compat": "1.1"}}, "raw image has no options"),
        ({"size": "1M", "sector_size": 1024}, "512 or 4096"),
        ({"fstype": "zfs"}, "is not one of: ext2"),
        ({}, "size must be given"),
        ({"size": "1M", "label": "x"}, "needs an fstype"),
        ({"fstype": "ext4", "label": "x" * 17}, "at most 16 bytes"),
        ({"fstype": "squashfs", "label": "x"}, "at most 0 bytes"),
        ({"fstype": "squashfs", "uuid": "1234-abcd"}, "squashfs has no UUID"),
        ({"fstype": "ext4", "uuid": "1234-abcd"}, "not a UUID"),
        ({"fstype": "vfat", "uuid": "12345678-9abc-4def-8123-456789abcdef"}, "eight hexadecimal digits"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_reason(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        build_image(tmp_path / "disk", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestInvalid, match="folder does not exist"):
        build_image(tmp_path / "missing/disk", size="1M")


def test_the_path_of_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestInvalid, match="is a folder"):
        build_image(tmp_path, size="1M")


def test_a_failed_build_leaves_the_image_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"before")
    with pytest.raises(ImageMountError):
        build_image(tmp_path / "disk", fstype="vfat", content={"a:b": "x"})
    assert (tmp_path / "disk").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]


def test_an_interrupted_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pytest_imagemount.factory.images.copy_sparse", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_image(tmp_path / "disk", size="1M")
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_is_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"before")
    assert build_image(tmp_path / "disk", raw=b"after").read_bytes() == b"after".ljust(512, b"\0")


def test_a_new_image_has_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        assert build_image(tmp_path / "disk", size="1M").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(before)


def test_raw_bytes_fill_an_image_and_a_partition(tmp_path: Path) -> None:
    whole = build_image(tmp_path / "whole", raw=b"payload", size="4K")
    assert whole.read_bytes() == b"payload".ljust(4096, b"\0")
    part = build_image(tmp_path / "part", table="mbr", partitions=[{"raw": b"payload"}])
    assert part.read_bytes()[MIB:][:512] == b"payload".ljust(512, b"\0")


def test_an_image_may_be_all_zeros(tmp_path: Path) -> None:
    image = build_image(tmp_path / "disk", size="1G")
    assert (image.stat().st_size, image.stat().st_blocks) == (1 << 30, 0)


@needs_ext4
@pytest.mark.parametrize("sizes", [{"size": 20 * MIB}, {"size": "20M"}])
def test_the_size_is_the_one_asked_for(tmp_path: Path, sizes: dict[str, Any]) -> None:
    assert build_image(tmp_path / "disk", fstype="ext4", **sizes).stat().st_size == 20 * MIB


@pytest.mark.parametrize(
    ("fstype", "most"),
    [
        pytest.param("ext4", MIB, marks=needs_ext4),
        pytest.param("xfs", MIB, marks=pytest.mark.needs("mkfs.xfs")),
        pytest.param("btrfs", 2 * MIB, marks=pytest.mark.needs("mkfs.btrfs")),
        pytest.param("vfat", MIB, marks=pytest.mark.needs("mkfs.vfat", "mtools")),
    ],
)
def test_a_large_image_takes_little_of_the_disk(tmp_path: Path, fstype: str, most: int) -> None:
    image = build_image(tmp_path / "disk", fstype=fstype, size="1G", content={"a": "b"})
    assert image.stat().st_size == 1 << 30
    assert image.stat().st_blocks * 512 <= most


@needs_ext4
@needs_qemu_img
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_equal_arguments_give_equal_images(tmp_path: Path, format: str) -> None:
    disk: dict[str, Any] = {
        "format": format,
        "table": "gpt",
        "partitions": [Partition(fstype="ext4", content=WEB01), Partition(size="1M")],
    }
    first, second = build_image(tmp_path / "1", **disk), build_image(tmp_path / "2", **disk)
    assert first.read_bytes() == second.read_bytes()


@needs_ext4
@pytest.mark.needs("sfdisk")
def test_two_partitions_of_equal_content_have_their_own_uuids(tmp_path: Path) -> None:
    part = Partition(fstype="ext4", content=WEB01, size="16M")
    image = build_image(tmp_path / "disk", table="gpt", partitions=[part, part])
    found = set()
    for offset in (MIB, 17 * MIB):
        text = programs.run(["blkid", "--probe", f"--offset={offset}", "--size=16777216", "-o", "export", str(image)])
        found.add(next(line for line in text.decode().splitlines() if line.startswith("UUID=")))
    assert len(found) == 2


@needs_ext4
def test_each_partition_holds_its_own_file_system(tmp_path: Path) -> None:
    contents = [{"name": "first"}, {"name": "second"}]
    parts = [{"fstype": "ext4", "size": "16M", "content": content} for content in contents]
    image = build_image(tmp_path / "disk", table="mbr", partitions=[*parts, *parts, parts[1]])
    from pytest_imagemount.factory.layout import Extent, plan

    windows = plan("mbr", [Extent(16 * MIB)] * 5, None, 512).windows
    assert [number for number, _ in windows] == [1, 2, 3, 5, 6]
    for (_, window), expected in zip(windows, (b"first", b"second", b"first", b"second", b"second"), strict=True):
        one = tmp_path / "one"
        one.write_bytes(image.read_bytes()[window.offset : window.end])
        assert read.ext_data(one, "name") == expected


@pytest.mark.parametrize("strange", ["with space", "ünï", "a,b=c", "file:x", "it's", "-dash"])
@needs_ext4
@needs_qemu_img
def test_strange_paths_are_taken_literally(tmp_path: Path, strange: str) -> None:
    folder = tmp_path / strange
    folder.mkdir()
    image = build_image(folder / strange, format="qcow2", fstype="ext4", content=WEB01)
    assert [path.name for path in folder.iterdir()] == [strange]
    assert image.read_bytes()[:4] == b"QFI\xfb"


@pytest.mark.parametrize("strange", ["with space", "ünï"])
@pytest.mark.needs("mkfs.xfs", "mkfs.vfat", "mtools", "mkfs.erofs", "mksquashfs", "mkfs.btrfs")
@pytest.mark.parametrize("fstype", ["xfs", "vfat", "erofs", "squashfs", "btrfs"])
def test_every_file_system_can_be_built_in_a_strange_folder(tmp_path: Path, strange: str, fstype: str) -> None:
    folder = tmp_path / strange
    folder.mkdir()
    assert build_image(folder / "disk", fstype=fstype, content={"a/b": "c"}).stat().st_size


@needs_ext4
def test_a_relative_path_is_relative_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert build_image("disk", fstype="ext4") == Path("disk")
    assert (tmp_path / "disk").is_file()


def test_a_sparse_copy_is_equal_and_has_no_more_blocks_than_data(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        for place, data in ((0, b"first"), (3 << 20, bytes(1 << 20)), (9 << 20, b"x" * 100_000)):
            file.seek(place)
            file.write(data)
        file.truncate(12 << 20)
    with (tmp_path / "copy").open("xb") as target:
        copy_sparse(source, target, 5 << 20)
    copy = tmp_path / "copy"
    assert copy.read_bytes() == bytes(5 << 20) + source.read_bytes()
    assert copy.stat().st_blocks * 512 < 1 << 19


@pytest.mark.parametrize("name", [None, "disk.raw"])
def test_the_factory_gives_a_new_path_in_its_folder(tmp_path: Path, name: str | None) -> None:
    factory = ImageFactory(tmp_path / "images")
    first = factory(name, size="1M")
    assert first.parent == tmp_path / "images"
    assert first.stat().st_size == MIB
    if name is not None:
        assert first.name == name
        with pytest.raises(RequestInvalid, match="exists"):
            factory(name, size="1M")
    else:
        assert factory(size="1M") != first


@pytest.mark.parametrize("name", ["", ".", "..", "../disk", "a/b", "/disk"])
def test_the_factory_takes_plain_file_names_only(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestInvalid, match="plain file name"):
        ImageFactory(tmp_path / "images")(name, size="1M")


def test_the_error_of_a_build_pickles(tmp_path: Path) -> None:
    import pickle

    with pytest.raises(RequestInvalid) as caught:
        build_image(tmp_path / "disk", fstype="vfat", content={"a:b": "x"})
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.__notes__) == (str(caught.value), caught.value.__notes__)
    assert any(str(tmp_path / "disk") in note for note in copy.__notes__)


def test_the_digest_of_an_image_does_not_depend_on_its_path(tmp_path: Path) -> None:
    images = [build_image(tmp_path / name, table="gpt", partitions=[{"size": "1M"}]) for name in ("a", "b")]
    assert len({hashlib.sha256(image.read_bytes()).digest() for image in images}) == 1
