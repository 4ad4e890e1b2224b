"""Which files are the parts of one image."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pytest_imagemount.errors import ImageInvalid, ImageUnreadable
from pytest_imagemount.split_images import other_parts


def write(folder: Path, **sizes: int) -> None:
    for number, size in sizes.items():
        (folder / f"disk.img.{number[1:]}").write_bytes(bytes(size))


def parts(folder: Path, first: str) -> list[str]:
    return [path.name for path in other_parts(folder / first, first)]


@pytest.mark.parametrize("numbers", [("000", "001", "002"), ("001", "002", "003")])
def test_the_parts_beside_the_first_are_found_in_order(tmp_path: Path, numbers: tuple[str, ...]) -> None:
    write(tmp_path, **{f"n{number}": 100 for number in numbers[:2]}, **{f"n{numbers[2]}": 7})
    write(tmp_path, nxyz=5, n0004=5)
    (tmp_path / "other.img.003").write_bytes(b"x")
    assert parts(tmp_path, f"disk.img.{numbers[0]}") == [f"disk.img.{number}" for number in numbers[1:]]


@pytest.mark.parametrize("first", ["disk.img.002", "disk.img", "disk.01", "disk.img.1", "001"])
def test_any_other_name_is_that_of_a_whole_image(tmp_path: Path, first: str) -> None:
    write(tmp_path, n002=100, n003=100)
    assert parts(tmp_path, first) == []


def test_a_folder_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbidden)
    with pytest.raises(ImageUnreadable, match="cannot be listed: Permission denied"):
        parts(tmp_path, "disk.img.001")


def test_a_part_that_is_a_folder_is_missing(tmp_path: Path) -> None:
    write(tmp_path, n001=5000)
    (tmp_path / "disk.img.002").mkdir()
    with pytest.raises(ImageInvalid, match=r"there is no disk\.img\.002"):
        parts(tmp_path, "disk.img.001")


def test_a_first_part_alone_is_a_whole_image(tmp_path: Path) -> None:
    write(tmp_path, n001=100)
    assert parts(tmp_path, "disk.img.001") == []


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    write(tmp_path, n001=100, n002=100, n004=100, n006=1)
    with pytest.raises(
        ImageInvalid, match=r"up to disk.img.006, there is no disk.img.003, disk.img.005; put it beside"
    ):
        parts(tmp_path, "disk.img.001")


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"n001": 100, "n002": 99, "n003": 5}, "disk.img.002 has 99 bytes where each part but the last has 100"),
        ({"n001": 100, "n002": 100, "n003": 101}, "disk.img.003 has 101 bytes"),
        ({"n001": 100, "n002": 200}, "disk.img.002 has 200 bytes"),
    ],
)
def test_a_part_of_another_size_is_named(tmp_path: Path, sizes: dict[str, int], told: str) -> None:
    write(tmp_path, **sizes)
    with pytest.raises(ImageInvalid, match=told) as caught:
        parts(tmp_path, "disk.img.001")
    assert "give them other names" in caught.value.hint
