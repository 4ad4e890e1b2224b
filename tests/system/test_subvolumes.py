"""btrfs subvolumes, made by the kernel."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.volumes.subvolumes import subvolumes
from pytest_imagemount.errors import RequestInvalid, VolumeNotFound

from .volume_images import sha256

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_imagemount.plugin import MountFactory

    ImageBuilder = Callable[..., Path]

pytestmark = pytest.mark.needs("root", "loop", "btrfs", "mkfs.btrfs")

_SUBVOL_CREATE = 0x5000940E  # _IOW(0x94, 14, struct btrfs_ioctl_vol_args): fd, name[4088]


def create_subvolume(folder: Path, name: str) -> Path:
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _SUBVOL_CREATE, bytearray(struct.pack("=q4088s", 0, name.encode())))
    finally:
        os.close(fd)
    return folder / name


@pytest.fixture(scope="module")
def disk(image_factory: ImageBuilder, module_mounted_image: MountFactory) -> Path:
    """As distributions lay it out: ``@``, ``@home``, and one in a folder of another."""
    disk = image_factory(fstype="btrfs", content={"where": "top"})
    with module_mounted_image(disk, mode="rw") as image:
        for name in ("@", "@home"):
            (create_subvolume(image.root, name) / "where").write_text(name)
        (image.root / "@" / "var").mkdir()
        (create_subvolume(image.root / "@" / "var", "machines") / "where").write_text("machines")
    return disk


def test_the_subvolume_that_is_named_is_mounted(disk: Path, mounted_image: MountFactory) -> None:
    before = sha256(disk)
    for subvolume, name in [("@", "@"), ("@home", "@home"), ("@/var/machines", "machines"), ("/@home", "@home")]:
        with mounted_image(disk, subvolume=subvolume) as image:
            assert (image / "where").read_text() == name
    with mounted_image(disk) as image:
        assert (image / "where").read_text() == "top"
    assert sha256(disk) == before


def test_what_is_written_to_a_subvolume_stays_in_it(disk: Path, mounted_image: MountFactory, tmp_path: Path) -> None:
    copy = tmp_path / "copy.raw"
    copy.write_bytes(disk.read_bytes())
    with mounted_image(copy, subvolume="@home", mode="rw") as image:
        (image / "new").write_text("x")
    with mounted_image(copy) as image:
        assert (image / "@home/new").read_text() == "x"
        assert not (image / "new").exists()


def test_an_error_lists_the_subvolumes(disk: Path, mounted_image: MountFactory) -> None:
    with pytest.raises(VolumeNotFound, match="no such subvolume") as missing, mounted_image(disk, subvolume="@srv"):
        pass
    assert missing.value.volumes == ("@", "@/var/machines", "@home")


@pytest.mark.parametrize("subvolume", ["", "/", "@home,rw"])
def test_what_is_no_path_is_refused(subvolume: str, disk: Path, mounted_image: MountFactory) -> None:
    with pytest.raises(RequestInvalid, match="a path from the top"), mounted_image(disk, subvolume=subvolume):
        pass


@pytest.mark.needs("ext4", "mke2fs")
def test_other_file_systems_have_none(image_factory: ImageBuilder, mounted_image: MountFactory) -> None:
    with (
        pytest.raises(RequestInvalid, match="of btrfs, and this is ext4"),
        mounted_image(image_factory(fstype="ext4"), subvolume="@"),
    ):
        pass


def test_many_subvolumes_are_listed_in_rounds(image_factory: ImageBuilder, mounted_image: MountFactory) -> None:
    with mounted_image(image_factory(fstype="btrfs"), mode="rw") as image:
        names = sorted(f"sub-{number:03}-{'long' * 20}" for number in range(60))
        for name in names:
            create_subvolume(image.root, name)
        fd = os.open(image.root, os.O_RDONLY)
        try:
            assert subvolumes(fd) == names
        finally:
            os.close(fd)
