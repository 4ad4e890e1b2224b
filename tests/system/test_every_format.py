"""Every format of image, by FUSE and by NBD: what is in it is read, and overlay mode writes without changing it.

Where qemu writes a format, mode rw does too.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.errors import ImageUnreadable
from pytest_imagemount.programs import run
from tests.foreign_writers import WRITERS

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_imagemount.factory import ImageFactory
    from pytest_imagemount.plugin import MountFactory

pytestmark = pytest.mark.needs("privileged", "loop", "ext4", "mke2fs", "qemu", "qemu-img")

FORMATS = {
    "qcow2": ("qcow2",),
    "qcow2-of-old": ("qcow2", "-o", "compat=0.10"),
    "qcow2-zstd": ("qcow2", "-c", "-o", "compression_type=zstd"),
    "qcow2-extended": ("qcow2", "-o", "extended_l2=on,lazy_refcounts=on"),
    "qcow": ("qcow",),
    "qed": ("qed",),
    "vmdk": ("vmdk",),
    "vmdk-stream": ("vmdk", "-o", "subformat=streamOptimized"),
    "vdi": ("vdi",),
    "vdi-static": ("vdi", "-o", "static=on"),
    "vpc": ("vpc", "-o", "force_size=on"),
    "vpc-fixed": ("vpc", "-o", "force_size=on,subformat=fixed"),
    "vhdx": ("vhdx",),
    "vhdx-fixed": ("vhdx", "-o", "subformat=fixed"),
    "parallels": ("parallels",),
    "dmg": ("dmg",),
    "bochs": ("bochs",),
    "cloop": ("cloop",),
}
NOT_WRITTEN = ("vmdk-stream", "dmg", "bochs", "cloop")
BACKENDS = [
    pytest.param("fuse", marks=pytest.mark.needs("fuse")),
    pytest.param("nbd", marks=pytest.mark.needs("nbd")),
]
NOISE = os.urandom(300_000)
CONTENT = {"etc/hostname": b"web01\n", "noise": NOISE, "hole": bytes(200_000)}


@pytest.fixture(scope="module")
def raw(image_factory: ImageFactory) -> Path:
    return image_factory(table="gpt", partitions=[{"fstype": "ext4", "size": "6M", "content": CONTENT}], size="9M")


@pytest.fixture
def image_of(raw: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    kind = request.getfixturevalue("kind")
    format, *options = FORMATS[kind]
    path = tmp_path / "image"
    if format in WRITERS:
        path.write_bytes(WRITERS[format](raw.read_bytes()))
    else:
        run(["qemu-img", "convert", "-f", "raw", "-O", format, *options, str(raw), str(path)])
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", FORMATS)
def test_it_is_read_and_overlay_mode_changes_nothing(
    kind: str, backend: str, image_of: Path, mounted_image: MountFactory
) -> None:
    before = sha256(image_of)
    with mounted_image(image_of, 1, backend=backend) as image:
        assert image.format == FORMATS[kind][0]
        for name, data in CONTENT.items():
            assert (image / name).read_bytes() == data
    with mounted_image(image_of, 1, mode="overlay", backend=backend) as image:
        (image / "etc/hostname").write_text("changed\n")
        (image / "new").write_bytes(NOISE)
        (image / "noise").unlink()
        os.sync()
        assert (image / "etc/hostname").read_text() == "changed\n"
        assert (image / "new").read_bytes() == NOISE
    assert sha256(image_of) == before


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in NOT_WRITTEN])
def test_what_rw_mode_writes_is_there_afterwards(
    kind: str, backend: str, image_of: Path, mounted_image: MountFactory
) -> None:
    with mounted_image(image_of, 1, mode="rw", backend=backend) as image:
        (image / "etc/hostname").write_text("changed\n")
        (image / "new").write_bytes(NOISE)
    with mounted_image(image_of, 1, backend=backend) as image:
        assert (image / "etc/hostname").read_text() == "changed\n"
        assert (image / "new").read_bytes() == NOISE
        assert (image / "noise").read_bytes() == NOISE
    if FORMATS[kind][0] in ("qcow2", "qed", "vdi", "vhdx", "parallels"):
        run(["qemu-img", "check", "-q", "-f", FORMATS[kind][0], str(image_of)])


@pytest.mark.parametrize("kind", NOT_WRITTEN)
def test_mode_rw_is_refused_where_qemu_does_not_write(kind: str, image_of: Path, mounted_image: MountFactory) -> None:
    before = sha256(image_of)
    with pytest.raises(ImageUnreadable, match=r"for mode 'rw': qemu .*does not write.*use mode='overlay'"):
        mounted_image(image_of, 1, mode="rw").__enter__()
    assert sha256(image_of) == before
