"""Contents: what is accepted, what is refused and why, and folders of this machine."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.errors import RequestInvalid
from pytest_imagemount.factory import Device, Directory, File, Hardlink, Symlink, build_image
from pytest_imagemount.factory.content import DEFAULT_TIME, content_tree
from pytest_imagemount.factory.sizes import parse_size

from . import image_readers as read

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"": "x"}, "not empty"),
        ({"/etc/passwd": "x"}, "leading '/'"),
        ({"a/../b": "x"}, "no part '..'"),
        ({"..": "x"}, "no part '..'"),
        ({"./a": "x"}, "no part '.'"),
        ({"a//b": "x"}, "no part ''"),
        ({"a/": Directory()}, "no part ''"),
        ({"a\0b": "x"}, "NUL"),
        ({"n" * 256: "x"}, "255 bytes"),
        ({"a": "x", "a/b": "y"}, "'a' is in the content too, and is not a folder"),
        ({"a/b": "x", "a": Symlink("c")}, "'a' is in the content too, and is not a folder"),
        ({".": "x"}, "root folder"),
        ({"a": 5}, "holds a int"),
        ({"a": File("x", mode=0o10000)}, "mode 0o10000"),
        ({"a": File("x", uid=-1)}, "uid -1"),
        ({"a": File("x", gid=2**32)}, "gid 4294967296"),
        ({"a": File("x", mtime=-1)}, "mtime -1"),
        ({"a": Symlink("")}, "link target"),
        ({"a": Symlink("b\0c")}, "link target"),
        ({"a": Hardlink("b")}, "hard link to 'b'"),
        ({"d": Directory(), "a": Hardlink("d")}, "hard link to 'd'"),
        ({"a": Device("char", 5000, 1)}, "major below 4096"),
        ({"a": Device("socket")}, "'char', 'block' or 'fifo'"),  # type: ignore[arg-type]
    ],
)
def test_a_content_that_is_wrong_is_refused_with_its_path(content: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestInvalid, match=reason) as caught:
        content_tree(content)
    assert caught.value.argument == "content"


def test_a_file_with_data_from_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestInvalid, match="not a file"):
        content_tree({"a": File(tmp_path / "missing")})


def test_parents_are_made_and_come_first() -> None:
    tree = content_tree({"z": Hardlink("a/b/c"), "a/b/c": "x", "a/b": Directory(mode=0o700)})
    assert list(tree.entries) == ["a", "a/b", "a/b/c", "z"]
    assert tree.entries["a"] == Directory()
    assert tree.entries["a/b"] == Directory(mode=0o700)


def test_the_order_of_a_mapping_makes_no_difference() -> None:
    entries: dict[str, Any] = {"b/x": "1", "a-b": "2", "a/x": "3"}
    first, second = content_tree(entries), content_tree(dict(reversed(entries.items())))
    assert list(first.entries) == list(second.entries)
    assert first.digest() == second.digest()


@pytest.mark.parametrize(
    "other",
    [{"a": "y"}, {"b": "x"}, {"a": File("x", mode=0o600)}, {"a": File("x", mtime=1)}, {"a": Symlink("x")}, {}],
)
def test_another_content_has_another_digest(other: dict[str, Any]) -> None:
    assert content_tree(other).digest() != content_tree({"a": "x"}).digest()


@pytest.mark.needs("mke2fs", "debugfs")
def test_text_bytes_and_a_file_of_this_machine_are_the_same_data(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("ü")
    assert {File("ü").size, File("ü".encode()).size, File(tmp_path / "data").size} == {2}
    contents: list[dict[str, Any]] = [{"a": "ü"}, {"a": "ü".encode()}, {"a": File(tmp_path / "data")}]
    images = [
        build_image(tmp_path / f"{index}.img", fstype="ext4", content=content) for index, content in enumerate(contents)
    ]
    assert len({image.read_bytes() for image in images}) == 1


def test_source_date_epoch_is_the_default_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = content_tree({"a": "x"})
    assert tree.time(File()) == DEFAULT_TIME
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1234567890")
    assert tree.time(File()) == 1_234_567_890
    assert tree.time(File(mtime=5)) == 5
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(RequestInvalid, match="SOURCE_DATE_EPOCH=yesterday"):
        tree.time(File())


def test_a_folder_is_taken_with_owners_modes_times_and_links(tmp_path: Path) -> None:
    source = make_folder(tmp_path)
    tree = content_tree(source)
    me: dict[str, Any] = {"uid": os.getuid(), "gid": source.stat().st_gid}
    assert tree.root.mode == 0o750
    assert tree.entries == {
        "bin": Directory(mode=0o755, mtime=50, **me),
        "bin/tool": File(source / "bin/tool", mode=0o4755, mtime=100, **me),
        "link": Symlink("/etc/passwd", mtime=tree.entries["link"].mtime, **me),  # type: ignore[union-attr]
        "pipe": Device("fifo", mode=0o600, mtime=tree.entries["pipe"].mtime, **me),  # type: ignore[union-attr]
        "same": Hardlink("bin/tool"),
    }


@pytest.mark.needs("mke2fs", "debugfs")
def test_a_folder_is_in_the_image_as_it_is(tmp_path: Path) -> None:
    image = build_image(tmp_path / "image", fstype="ext4", content=make_folder(tmp_path))
    read.ext_is_sound(image)
    assert read.ext_facts(image, "same") == read.Facts(0o4755, os.getuid(), tmp_path.stat().st_gid, 100)
    assert read.ext_data(image, "bin/tool") == b"tool"


@pytest.mark.needs("mkfs.vfat", "mtools")
def test_a_folder_loses_its_owners_on_vfat_as_it_would_in_a_copy(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir(mode=0o700)
    (source / "run.sh").write_text("echo")
    (source / "run.sh").chmod(0o755)
    image = build_image(tmp_path / "image", fstype="vfat", content=str(source))
    assert read.vfat_data(image, "run.sh") == b"echo"


@pytest.mark.needs("mke2fs", "debugfs")
def test_a_sparse_file_of_a_folder_stays_sparse(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "disk").open("wb") as file:
        file.seek(200 << 20)
        file.write(b"end")
    image = build_image(tmp_path / "image", fstype="ext4", size="400M", content=source)
    assert image.stat().st_blocks * 512 < 16 << 20
    assert read.ext_data(image, "disk")[200 << 20 :] == b"end"


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestInvalid, match="not a folder"):
        content_tree(tmp_path / "missing")


def test_a_folder_with_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("control")
        with pytest.raises(RequestInvalid, match="socket"):
            content_tree(tmp_path)


@pytest.mark.parametrize(
    ("value", "size"),
    [(4096, 4096), ("4096", 4096), ("64M", 64 << 20), ("1g", 1 << 30), ("512 KiB", 512 << 10), ("2T", 2 << 40)],
)
def test_sizes_are_bytes_or_text_with_a_binary_unit(value: int | str, size: int) -> None:
    assert parse_size(value) == size


@pytest.mark.parametrize("value", ["", "M", "64 potatoes", "-1", -1, 0, "0M", "1.5G", True, None])
def test_what_is_no_size_is_refused(value: Any) -> None:
    with pytest.raises(RequestInvalid, match=r"^size="):
        parse_size(value)


def make_folder(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "bin").mkdir(parents=True)
    tool = source / "bin/tool"
    tool.write_text("tool")
    tool.chmod(0o4755)
    os.utime(tool, (100, 100))
    (source / "bin").chmod(0o755)
    os.utime(source / "bin", (50, 50))
    (source / "same").hardlink_to(tool)
    (source / "link").symlink_to("/etc/passwd")
    os.mkfifo(source / "pipe", 0o600)
    (source / "pipe").chmod(0o600)
    source.chmod(0o750)
    return source
