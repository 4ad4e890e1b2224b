from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.image import Image, identify
from pytest_imagemount.errors import FormatMismatch, ImageInvalid, ImageMountError, RequestInvalid
from pytest_imagemount.programs import run

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def look(path: Path, format: str | None = None) -> Image:
    with opened(path) as fd:
        return identify(fd, path.name, format)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.qcow2"
    path.write_bytes(b"not a header" + bytes(5000))
    return path


def test_facts_of_a_raw_image(raw: Path) -> None:
    status = raw.stat()
    with opened(raw) as fd:
        image = identify(fd, "the image")
    assert image == Image(
        fd=fd,
        name="the image",
        format="raw",
        virtual_size=5012,
        file_size=5012,
        writable=False,
        is_block_device=False,
        identity=(status.st_dev, status.st_ino, 5012, status.st_mtime_ns),
    )


def test_writable_is_how_it_was_opened(raw: Path) -> None:
    with opened(raw, os.O_RDWR) as fd:
        assert identify(fd, "disk").writable


def test_the_descriptor_stays_open_and_where_it_was(raw: Path) -> None:
    with opened(raw) as fd:
        os.lseek(fd, 3, os.SEEK_SET)
        identify(fd, "disk")
        assert os.read(fd, 5) == b" a he"


def test_the_name_of_the_file_says_nothing(raw: Path) -> None:
    assert raw.suffix == ".qcow2"
    assert look(raw).format == "raw"


def test_an_empty_file_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(ImageInvalid, match=r"'empty': it is empty \(0 bytes\)"):
        look(tmp_path / "empty")


def test_a_folder_is_invalid(tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match=r"this is a folder, not an image; give the path"):
        look(tmp_path)


def test_a_pipe_a_socket_and_a_character_device_are_invalid(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with opened(tmp_path / "pipe", os.O_RDWR) as fd, pytest.raises(ImageInvalid, match="a named pipe"):
        identify(fd, "pipe")
    with socket.socket(socket.AF_UNIX) as end, pytest.raises(ImageInvalid, match="a socket"):
        identify(end.fileno(), "socket")
    with Path(os.devnull).open("rb") as null, pytest.raises(ImageInvalid, match="a character device"):
        identify(null.fileno(), "null")


def test_a_symbolic_link_opened_as_such_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("anywhere")
    flags = os.O_PATH | os.O_NOFOLLOW
    with opened(tmp_path / "link", flags) as fd, pytest.raises(ImageInvalid, match="a symbolic link"):
        identify(fd, "link")


def test_a_descriptor_that_cannot_be_read_is_invalid(raw: Path) -> None:
    with opened(raw, os.O_WRONLY) as fd, pytest.raises(ImageInvalid, match="cannot be read: Bad file descriptor"):
        identify(fd, "disk")


def test_an_unknown_format_lists_the_known_ones(raw: Path) -> None:
    with pytest.raises(RequestInvalid, match=r"format='qcow3': unknown; known are raw, qcow2, .*dmg"):
        look(raw, "qcow3")


@pytest.mark.parametrize("format", ["raw", "img", "iso", "RAW"])
def test_raw_has_aliases(raw: Path, format: str) -> None:
    assert look(raw, format).format == "raw"


@pytest.mark.parametrize("format", ["qcow2", "vhd", "vpc", "vmdk", "vdi", "vhdx", "qed", "dmg", "hdd"])
def test_a_format_that_the_content_does_not_bear_out_is_a_mismatch(raw: Path, format: str) -> None:
    with pytest.raises(FormatMismatch, match="the content is raw") as caught:
        look(raw, format)
    assert {"vhd": "vpc", "hdd": "parallels"}.get(format, format) in caught.value.reason


@pytest.mark.needs("qemu-img")
def test_raw_that_looks_like_qcow2_stays_raw_when_the_caller_says_so(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "8M"])
    assert look(path).format == "qcow2"
    image = look(path, "raw")
    assert (image.format, image.virtual_size) == ("raw", path.stat().st_size)
    with pytest.raises(FormatMismatch, match=r"format='vmdk' was asked for, but the content is qcow2"):
        look(path, "vmdk")


def test_names_with_control_characters_are_escaped_in_errors(raw: Path) -> None:
    with opened(raw) as fd, pytest.raises(ImageMountError) as caught:
        identify(fd, "a\x1b[2Jb", "qcow2")
    assert "\x1b" not in str(caught.value)
