"""Images of several files, mounted: differences to other images, data files, extents; nothing that is not listed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.errors import ImageBusy, ImageInvalid, ImageUnreadable, ImageUnsafe
from pytest_imagemount.programs import run

if TYPE_CHECKING:
    from pytest_imagemount.factory import ImageFactory
    from pytest_imagemount.plugin import AttachFactory, MountFactory

pytestmark = pytest.mark.needs("privileged", "loop", "ext4", "mke2fs", "qemu", "qemu-img")

NOISE = os.urandom(300_000)
BACKENDS = [
    pytest.param("fuse", marks=pytest.mark.needs("fuse")),
    pytest.param("nbd", marks=pytest.mark.needs("nbd")),
]


@pytest.fixture
def raw(image_factory: ImageFactory, tmp_path: Path) -> Path:
    image = image_factory(fstype="ext4", content={"etc/hostname": "web01\n", "noise": NOISE}, size="9M")
    return image.rename(tmp_path / "base.raw")


def convert(raw: Path, name: str, format: str, *options: str) -> Path:
    path = raw.with_name(name)
    run(["qemu-img", "convert", "-f", "raw", "-O", format, *options, str(raw), str(path)])
    return path


def above(base: Path, name: str, format: str, base_format: str) -> Path:
    """An image that is a difference to ``base``, which it names without its folder."""
    path = base.with_name(name)
    run(["qemu-img", "create", "-q", "-f", format, "-b", base.name, "-F", base_format, str(path)])
    return path


def sums(folder: Path) -> dict[str, str]:
    """A checksum of each file; holes are not read."""
    return {path.name: _sum(path) for path in folder.iterdir() if path.is_file()}


def _sum(path: Path) -> str:
    digest, place, size = hashlib.sha256(str(path.stat().st_size).encode()), 0, 1 << 20
    with path.open("rb", buffering=0) as file, contextlib.suppress(OSError):  # ENXIO: no more data
        while True:
            place = os.lseek(file.fileno(), place, os.SEEK_DATA) // size * size
            if any(block := os.pread(file.fileno(), size, place)):
                digest.update(place.to_bytes(8) + block)
            place += size
    return digest.hexdigest()


@pytest.fixture(
    params=["qcow2 over raw", "a chain", "vmdk over vmdk", "flat", "split sparse", "split flat", "data file"]
)
def layered(request: pytest.FixtureRequest, raw: Path) -> Path:
    kind = request.param
    if kind == "qcow2 over raw":
        return above(raw, "top.qcow2", "qcow2", "raw")
    if kind == "a chain":
        middle = above(convert(raw, "low.vdi", "vdi"), "middle.qcow2", "qcow2", "vdi")
        return above(above(middle, "high.qcow2", "qcow2", "qcow2"), "top.qcow2", "qcow2", "qcow2")
    if kind == "vmdk over vmdk":
        return above(convert(raw, "base.vmdk", "vmdk"), "top.vmdk", "vmdk", "vmdk")
    if kind == "data file":
        path = convert(raw, "top.qcow2", "qcow2", "-o", f"data_file={raw.with_name('data')}")
        assert raw.with_name("data").stat().st_size
        return path
    subformat = {"flat": "monolithicFlat", "split sparse": "twoGbMaxExtentSparse", "split flat": "twoGbMaxExtentFlat"}
    if kind != "flat":
        os.truncate(raw, 5 << 30)  # three extents
    return convert(raw, "disk.vmdk", "vmdk", "-o", f"subformat={subformat[kind]}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_read_and_written_over_without_a_change(
    layered: Path, backend: str, mounted_image: MountFactory, tmp_path: Path
) -> None:
    small = layered.parent / "base.raw"
    if small.stat().st_size > 1 << 30:
        small.unlink()
    before = sums(tmp_path)
    with pytest.raises(ImageUnsafe, match=r"another file.*backing=\[FOLDER\]"):
        mounted_image(layered, backend=backend).__enter__()
    with mounted_image(layered, backing=[tmp_path], backend=backend) as image:
        assert (image / "noise").read_bytes() == NOISE
        with mounted_image(layered, backing=[tmp_path], mode="overlay", backend=backend) as other:
            (other / "etc/hostname").write_text("changed\n")
            (other / "new").write_bytes(NOISE)
            assert (other / "noise").read_bytes() == NOISE
        assert (image / "etc/hostname").read_text() == "web01\n"
    assert sums(tmp_path) == before


@pytest.mark.needs("fuse")
@pytest.mark.parametrize("layered", ["qcow2 over raw", "vmdk over vmdk", "data file"], indirect=True)
def test_mode_rw_writes_to_the_top_and_to_data_files_alone(
    layered: Path, mounted_image: MountFactory, tmp_path: Path
) -> None:
    before = sums(tmp_path)
    with mounted_image(layered, backing=[tmp_path], mode="rw", backend="fuse") as image:
        (image / "etc/hostname").write_text("changed\n")
        (image / "new").write_bytes(NOISE)
    changed = {name for name, value in sums(tmp_path).items() if before.get(name) != value}
    assert changed - {"top.qcow2"} == ({"data"} if (tmp_path / "data").exists() else {"top.vmdk"} & changed)
    with mounted_image(layered, backing=[tmp_path], backend="fuse") as image:
        assert (image / "etc/hostname").read_text() == "changed\n"
        assert (image / "new").read_bytes() == NOISE


@pytest.mark.needs("fuse")
@pytest.mark.parametrize("layered", ["flat"], indirect=True)
def test_a_vmdk_of_several_files_is_not_written_to(layered: Path, mounted_image: MountFactory, tmp_path: Path) -> None:
    with pytest.raises(ImageUnreadable, match="a VMDK of several files is not written to"):
        mounted_image(layered, backing=[tmp_path], mode="rw").__enter__()


@pytest.mark.needs("fuse")
@pytest.mark.parametrize("layered", ["split flat"], indirect=True)
def test_an_extent_that_was_cut_short_is_an_error(layered: Path, mounted_image: MountFactory, tmp_path: Path) -> None:
    os.truncate(tmp_path / "disk-f002.vmdk", 1 << 30)
    with pytest.raises(ImageInvalid, match=r"disk-f002.vmdk': truncated: 2147483648 bytes of it are wanted"):
        mounted_image(layered, backing=[tmp_path]).__enter__()


@pytest.mark.needs("fuse")
@pytest.mark.parametrize("layered", ["split sparse"], indirect=True)
def test_an_extent_that_names_other_files_is_an_error(
    layered: Path, mounted_image: MountFactory, tmp_path: Path
) -> None:
    extent = tmp_path / "disk-s001.vmdk"
    head = bytearray(extent.read_bytes())
    for text in (b'parentFileNameHint="/etc/shadow"\n', b'RW 100 FLAT "/etc/shadow" 0\n'):
        head[512 : 512 + len(text)] = text
        extent.write_bytes(head)
        with pytest.raises(ImageInvalid, match="shadow"):
            mounted_image(layered, backing=[tmp_path]).__enter__()


@pytest.mark.needs("fuse")
def test_what_is_below_a_mounted_image_is_not_written_to_meanwhile(
    raw: Path, mounted_image: MountFactory, tmp_path: Path
) -> None:
    top = above(raw, "top.qcow2", "qcow2", "raw")
    with mounted_image(top, backing=[tmp_path]):
        with pytest.raises(ImageBusy, match="still after 0 s"):
            mounted_image(raw, mode="rw", timeout=0.1).__enter__()
        with mounted_image(raw) as image:
            assert (image / "noise").read_bytes() == NOISE


@pytest.mark.needs("root", "fuse")
def test_a_raw_backing_file_that_looks_like_a_qcow2_stays_raw(
    raw: Path, attached_image: AttachFactory, tmp_path: Path
) -> None:
    """Who wrote to the raw disk may have put the header of a qcow2 there, with the name of a file of the host's."""
    secret, trap = tmp_path / "secret", tmp_path / "trap.raw"
    secret.write_bytes(b"secret" * 2000)
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(trap)])
    with attached_image(above(trap, "top.qcow2", "qcow2", "raw"), backing=[tmp_path]) as device:
        assert Path(device.path).read_bytes()[: trap.stat().st_size] == trap.read_bytes()


@pytest.mark.needs("root", "loop")
@pytest.mark.parametrize("mode", ["ro", "rw"])
def test_a_raw_image_that_looks_like_another_stays_raw_when_the_caller_says_so(
    tmp_path: Path, attached_image: AttachFactory, mode: str
) -> None:
    path = tmp_path / "disk"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", "backing_file=/etc/shadow,backing_fmt=raw", str(path), "1M"])
    os.truncate(path, 1 << 20)
    with pytest.raises(ImageUnsafe):
        attached_image(path, mode=mode).__enter__()
    with attached_image(path, format="raw", mode=mode) as device:
        assert Path(device.path).read_bytes() == path.read_bytes()
    with attached_image(path, format="raw", mode="overlay") as device:
        assert Path(device.path).read_bytes() == path.read_bytes()


@pytest.mark.needs("fuse")
def test_a_disk_of_many_extents_is_attached(attached_image: AttachFactory, tmp_path: Path) -> None:
    path = tmp_path / "disk.vmdk"
    run(["qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", str(path), "100G"])
    assert len(list(tmp_path.iterdir())) == 51
    with attached_image(path, backing=[tmp_path], backend="fuse") as device:
        assert device.size == 100 << 30
