"""Compressed and split images made whole, from the path to the descriptor that is handed on."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.errors import ImageInvalid, ImageUnreadable, UnpackFailed
from pytest_imagemount.image_cache import cache_folder
from pytest_imagemount.unpacking import Unpacker

from .contents import dmg

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

DISK = b"disk" * 100_000 + bytes(1 << 20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return cache_folder(tmp_path / "cache")


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def whole(folder: Path, told: list[str]) -> Callable[..., bytes | None]:
    """The content of the whole image, None where the file is it already."""

    def whole(path: Path, mode: str = "ro", **options: Any) -> bytes | None:
        unpacker = Unpacker(folder, options.pop("limit", 1 << 40), told.append)
        fd = os.open(path, os.O_RDONLY)
        try:
            found = unpacker.whole(fd, path, path.name, mode)
            if found is None:
                return None
            try:
                return os.pread(found, len(DISK) + 1, 0)
            finally:
                os.close(found)
        finally:
            os.close(fd)

    return whole


def split(data: bytes, path: Path, size: int) -> Path:
    for number, at in enumerate(range(0, len(data), size), 1):
        path.with_name(f"{path.name}.{number:03}").write_bytes(data[at : at + size])
    return path.with_name(f"{path.name}.001")


def test_a_plain_image_is_taken_as_it_is(tmp_path: Path, whole: Callable[..., bytes | None], folder: Path) -> None:
    path = tmp_path / "disk.img.gz"
    path.write_bytes(DISK)
    assert whole(path) is None
    assert whole(path, "rw") is None
    assert list(folder.iterdir()) == []


def test_compressed_is_what_the_content_says(
    tmp_path: Path, whole: Callable[..., bytes | None], folder: Path, told: list[str]
) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(gzip.compress(DISK))
    assert whole(path) == DISK
    assert whole(path) == DISK
    assert sorted(entry.suffix for entry in folder.iterdir()) == [".img", ".json"]
    (image,) = folder.glob("*.img")
    assert image.stat().st_blocks * 512 < 500_000
    assert told == []


def test_a_split_image_is_joined(tmp_path: Path, whole: Callable[..., bytes | None]) -> None:
    assert whole(split(DISK, tmp_path / "disk.img", 300_001)) == DISK


def test_a_compressed_image_that_is_split_is_joined_and_unpacked(
    tmp_path: Path, whole: Callable[..., bytes | None], folder: Path
) -> None:
    first = split(gzip.compress(DISK), tmp_path / "disk.img.gz", 500)
    assert whole(first) == DISK
    assert len(list(folder.glob("*.img"))) == 1


def test_a_part_that_changes_makes_another_image(tmp_path: Path, whole: Callable[..., bytes | None]) -> None:
    first = split(DISK, tmp_path / "disk.img", 1 << 20)
    assert whole(first) == DISK
    first.with_suffix(".002").write_bytes(b"x" * first.with_suffix(".002").stat().st_size)
    changed = whole(first)
    assert changed is not None
    assert changed.endswith(b"xxx")


@pytest.mark.parametrize("kind", ["compressed", "split"])
def test_it_cannot_be_written_to(tmp_path: Path, whole: Callable[..., bytes | None], kind: str) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(gzip.compress(DISK))
    if kind == "split":
        path = split(DISK, path, 1 << 20)
    with pytest.raises(ImageUnreadable, match=r"for mode 'rw': it is (compressed|split).*use mode='overlay'"):
        whole(path, "rw")
    assert whole(path, "overlay") == DISK


@pytest.mark.parametrize("kind", ["compressed", "split"])
def test_past_the_limit_nothing_is_left(
    tmp_path: Path, whole: Callable[..., bytes | None], kind: str, folder: Path
) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(gzip.compress(bytes(100 << 20)) * 3)
    if kind == "split":
        path = split(DISK, path, 1 << 20)
    with pytest.raises(UnpackFailed, match="more than 1 MiB, and no more is allowed; raise --imagemount-unpack-limit"):
        whole(path, limit=1 << 20)
    assert list(folder.iterdir()) == []


def test_corrupt_data_leaves_nothing(tmp_path: Path, whole: Callable[..., bytes | None], folder: Path) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(gzip.compress(DISK)[:-9])
    with pytest.raises(ImageInvalid, match=r"'disk.img': its gzip data is not sound"):
        whole(path)
    assert list(folder.iterdir()) == []


def test_an_image_format_that_starts_like_compressed_data_is_none(
    tmp_path: Path, whole: Callable[..., bytes | None]
) -> None:
    path = tmp_path / "apple"
    path.write_bytes(dmg(b"BZh91AY&SY"))
    assert whole(path) is None


def test_a_named_pipe_is_not_read(tmp_path: Path, folder: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    fd = os.open(tmp_path / "pipe", os.O_RDWR | os.O_NONBLOCK)
    assert Unpacker(folder, 1, print).whole(fd, tmp_path / "pipe", "pipe", "ro") is None
    os.close(fd)
