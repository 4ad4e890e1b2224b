"""Files that an image refers to: only those in the folders that are listed, each of the format that is said."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.backing_files import MAX_DEPTH, MAX_FILES, Backing, referred_files
from pytest_imagemount.engine.image import identify
from pytest_imagemount.errors import ImageInvalid, ImageUnreadable, ImageUnsafe, RequestInvalid
from pytest_imagemount.programs import run

from .contents import Qcow2, qcow, qed

if TYPE_CHECKING:
    from collections.abc import Callable

    Follow = Callable[..., list[str]]

BACKING_FORMAT = 0xE2792ACA


def qcow2(name: str | bytes, format: str | None = "raw") -> bytes:
    """A qcow2 with this backing file, of this format."""
    encoded = os.fsencode(name)
    extensions = [] if format is None else [(BACKING_FORMAT, format.encode())]
    image = bytearray(Qcow2(backing_offset=512, backing_size=len(encoded), extensions=extensions).build())
    image[512 : 512 + len(encoded)] = encoded
    return bytes(image)


def qcow2_with_data(name: str) -> bytes:
    return Qcow2(incompatible=1 << 2, extensions=[(0x44415441, name.encode())]).build()


@pytest.fixture
def follow() -> Follow:
    """The paths that the image refers to; what the helper makes of the descriptors is compared."""

    def follow(path: Path, *folders: Path, mode: str = "ro") -> list[str]:
        with ExitStack() as closing:
            fd = os.open(path, os.O_RDWR if mode == "rw" else os.O_RDONLY)
            closing.callback(os.close, fd)
            backing = Backing.of(list(folders) or [path.parent], ())
            found = referred_files(fd, path, path.name, None, mode, backing, closing)
            image = identify(fd, path.name, files=found) if found else identify(fd, path.name)
            layers, waiting = [], list(image.layers)
            while waiting:
                layer = waiting.pop(0)
                layers.append(layer.image.fd)
                waiting = [*layer.image.layers, *waiting]
            assert layers == [descriptor for _, descriptor in found]
            for place, descriptor in found:
                assert os.path.samestat(os.fstat(descriptor), Path(place).stat())
            return [place for place, _ in found]

    return follow


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.raw"
    path.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(1 << 20))
    return path


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_backing_file_is_found_beside_the_image(base: Path, follow: Follow, tmp_path: Path) -> None:
    for name in ("base.raw", "./base.raw", str(base), f"../{tmp_path.name}/base.raw"):
        assert len(follow(write(tmp_path / "top.qcow2", qcow2(name)))) == 1


def test_a_chain_is_followed_in_order(base: Path, follow: Follow, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    write(tmp_path / "below/middle", qcow2("../base.raw"))
    top = write(tmp_path / "top", qcow2("below/middle", "qcow2"))
    assert follow(top) == [str(tmp_path / "below/middle"), str(tmp_path / "below/../base.raw")]


def test_a_data_file_comes_before_the_backing_file(base: Path, follow: Follow, tmp_path: Path) -> None:
    write(tmp_path / "data", bytes(1 << 20))
    assert follow(write(tmp_path / "top", qcow2_with_data("data"))) == [str(tmp_path / "data")]


def test_nothing_is_opened_where_nothing_is_allowed(base: Path, tmp_path: Path) -> None:
    top = write(tmp_path / "top", qcow2("base.raw"))
    with ExitStack() as closing, top.open("rb") as file:
        assert referred_files(file.fileno(), top, "top", None, "ro", Backing.of("refuse", [tmp_path]), closing) == []
        with pytest.raises(ImageUnsafe, match=r"backing file is another file.*or say which folder.*backing=\[FOLDER\]"):
            identify(file.fileno(), "top")


@pytest.mark.parametrize("way", ["absolute", "dots", "link", "link to its folder"])
def test_a_file_outside_the_folders_is_refused_whatever_the_way(
    way: str, base: Path, follow: Follow, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "link").symlink_to("../base.raw")
    (images / "folder").symlink_to("..")
    name = {"absolute": str(base), "dots": "../base.raw", "link": "link", "link to its folder": "folder/base.raw"}[way]
    top = write(images / "top", qcow2(name))
    with pytest.raises(ImageUnsafe, match=rf"is at {base}, outside the folders listed: .*images"):
        follow(top)
    assert len(follow(top, images, tmp_path)) == 1


def test_a_folder_whose_name_starts_alike_is_another(base: Path, follow: Follow, tmp_path: Path) -> None:
    for name in ("images", "images-of-others"):
        (tmp_path / name).mkdir()
    write(tmp_path / "images-of-others/base", bytes(512))
    top = write(tmp_path / "images/top", qcow2("../images-of-others/base"))
    with pytest.raises(ImageUnsafe, match="outside the folders"):
        follow(top)


def test_a_link_that_stays_inside_is_followed(base: Path, follow: Follow, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(base)
    (tmp_path / "other name").symlink_to(tmp_path)
    top = write(tmp_path / "top", qcow2("link"))
    assert len(follow(top)) == 1
    assert len(follow(top, tmp_path / "other name")) == 1


@pytest.mark.parametrize(
    "name", ["nbd://localhost/x", "json:{}", "file:base.raw", "fat:rw:/etc", "http://somebody/x", "\0base.raw"]
)
def test_a_name_that_is_no_path_is_refused(name: str, base: Path, follow: Follow, tmp_path: Path) -> None:
    with pytest.raises(ImageUnsafe, match="is no path of a file"):
        follow(write(tmp_path / "top", qcow2(name)))


@pytest.mark.parametrize("content", [qcow2("base.raw", None), qcow(backing=b"base.raw"), qed(1, name=b"base.raw")])
def test_a_format_that_is_not_said_is_not_guessed(content: bytes, base: Path, follow: Follow, tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match=r"not say of which format .* is, and that is not guessed.*rebase -u -F"):
        follow(write(tmp_path / "top", content))


def test_qed_says_that_it_is_raw(base: Path, follow: Follow, tmp_path: Path) -> None:
    assert len(follow(write(tmp_path / "top", qed(5, name=b"base.raw")))) == 1


def test_a_format_that_is_not_known_is_told(base: Path, follow: Follow, tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match=r"format of its backing file 'base.raw' is 'q\\\\x1bx', unknown; known are"):
        follow(write(tmp_path / "top", qcow2("base.raw", "q\x1bx")))


def test_a_format_that_does_not_fit_is_told(base: Path, follow: Follow, tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match=r"base.raw': format='vmdk' was asked for, but the content is qcow2"):
        follow(write(tmp_path / "top", qcow2("base.raw", "vmdk")))


def test_a_file_that_is_missing_is_named(follow: Follow, tmp_path: Path) -> None:
    with pytest.raises(ImageInvalid, match=r"its backing file 'gone' cannot be reached: No such file .*/gone exists"):
        follow(write(tmp_path / "top", qcow2("gone")))


def test_an_image_that_is_its_own_backing_file_is_refused(follow: Follow, tmp_path: Path) -> None:
    with pytest.raises(ImageUnsafe, match="'top' leads back to an image of the chain"):
        follow(write(tmp_path / "top", qcow2("top", "qcow2")))


def test_a_loop_of_two_is_refused(follow: Follow, tmp_path: Path) -> None:
    write(tmp_path / "other", qcow2("top", "qcow2"))
    with pytest.raises(ImageUnsafe, match=r"other': its backing file 'top' leads back"):
        follow(write(tmp_path / "top", qcow2("other", "qcow2")))


def test_a_chain_that_is_too_long_is_refused(base: Path, follow: Follow, tmp_path: Path) -> None:
    below = "base.raw", "raw"
    for depth in range(MAX_DEPTH - 1):
        write(tmp_path / f"{depth}", qcow2(*below))
        below = f"{depth}", "qcow2"
    assert len(follow(tmp_path / below[0])) == MAX_DEPTH - 1
    with pytest.raises(ImageUnsafe, match="longer than 16"):
        follow(write(tmp_path / "top", qcow2(*below)))


def test_too_many_extents_are_refused(follow: Follow, tmp_path: Path) -> None:
    write(tmp_path / "x", bytes(512))
    lines = ['RW 1 FLAT "x" 0'] * (MAX_FILES + 1)
    with pytest.raises(ImageUnsafe, match=f"more than {MAX_FILES} files"):
        follow(write(tmp_path / "top", "\n".join(["version=1", 'createType="monolithicFlat"', *lines]).encode()))


@pytest.mark.parametrize(
    "line", ['RW 5 ZERO "x"', "RW 5 ZERO", 'RDONLY 5 FLAT "x" 0', 'RW 5 SESPARSE "x"', "RW 5 FLAT"]
)
def test_an_extent_that_qemu_would_skip_is_refused(line: str, follow: Follow, tmp_path: Path) -> None:
    write(tmp_path / "x", bytes(4096))
    with pytest.raises(ImageInvalid, match="an extent of a kind that qemu skips"):
        follow(write(tmp_path / "top", f'version=1\nRW 1 FLAT "x" 0\n{line}\n'.encode()))


def test_a_folder_a_pipe_and_a_device_are_no_images(follow: Follow, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, kind in [("pipe", "a named pipe"), ("folder", "a folder"), ("/dev/null", "a character device")]:
        with pytest.raises(ImageInvalid, match=kind):
            follow(write(tmp_path / "top", qcow2(name)), tmp_path, Path("/dev"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_the_caller_may_not_read_is_told(base: Path, follow: Follow, tmp_path: Path) -> None:
    base.chmod(0)
    with pytest.raises(ImageUnreadable, match=r"its backing file 'base.raw': Permission denied"):
        follow(write(tmp_path / "top", qcow2("base.raw")))


def test_only_a_data_file_is_opened_for_writing(base: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "data", bytes(1 << 20))
    for content, access in [(qcow2("base.raw"), os.O_RDONLY), (qcow2_with_data(data.name), os.O_RDWR)]:
        top = write(tmp_path / "top", content)
        with ExitStack() as closing, top.open("r+b") as file:
            backing = Backing.of(tmp_path, ())
            ((_, fd),) = referred_files(file.fileno(), top, "top", None, "rw", backing, closing)
            assert identify(fd, "x", "raw").writable is (access == os.O_RDWR)


def test_what_may_be_said_of_backing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Backing.of("refuse", [tmp_path]) == Backing(())
    assert Backing.of("allow", [tmp_path]) == Backing((tmp_path,))
    assert Backing.of(["a", Path("/b")], []) == Backing((tmp_path / "a", Path("/b")))
    assert Backing.of(Path("a"), []) == Backing((tmp_path / "a",))
    with pytest.raises(RequestInvalid, match="backing='allow': no folder is listed; set imagemount_backing_folders"):
        Backing.of("allow", [])
    with pytest.raises(RequestInvalid, match="must be 'refuse', 'allow', or a list"):
        Backing.of("/images", [])


@pytest.mark.needs("qemu-img")
def test_a_chain_that_qemu_makes_is_followed(base: Path, follow: Follow, tmp_path: Path) -> None:
    def create(format: str, name: str, below: str, below_format: str) -> None:
        run(["qemu-img", "create", "-q", "-f", format, "-b", below, "-F", below_format, str(tmp_path / name)])

    run(["qemu-img", "create", "-q", "-f", "vmdk", str(tmp_path / "0.vmdk"), "1M"])
    create("vmdk", "1.vmdk", str(tmp_path / "0.vmdk"), "vmdk")
    create("qcow2", "2.qcow2", "1.vmdk", "vmdk")
    create("qed", "3.qed", "base.raw", "raw")
    assert [Path(path).name for path in follow(tmp_path / "2.qcow2")] == ["1.vmdk", "0.vmdk"]
    assert [Path(path).name for path in follow(tmp_path / "3.qed")] == ["base.raw"]


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("kind", ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
def test_the_extents_of_a_vmdk_are_found(follow: Follow, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "disk.vmdk"
    run(["qemu-img", "create", "-q", "-f", "vmdk", "-o", f"subformat={kind}", str(path), "3G"])
    expected = sorted(str(extent) for extent in tmp_path.iterdir() if extent != path)
    assert follow(path) == expected


def test_more_or_fewer_files_than_are_named_are_an_error(base: Path, tmp_path: Path) -> None:
    top = write(tmp_path / "top", qcow2("base.raw"))
    with top.open("rb") as file, base.open("rb") as below:
        one = ("base.raw", below.fileno())
        with pytest.raises(RequestInvalid, match="more than the image refers to"):
            identify(file.fileno(), "top", files=[one, one])
        write(tmp_path / "chain", qcow2("top", "qcow2"))
        with (tmp_path / "chain").open("rb") as chain, pytest.raises(RequestInvalid, match="did not come along"):
            identify(chain.fileno(), "chain", files=[("top", file.fileno())])
