from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine import loop
from pytest_imagemount.engine.image import identify
from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.superblock import probe
from pytest_imagemount.programs import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("root", "loop")

MIB = 1 << 20


def attach(path: Path) -> loop.LoopDevice:
    fd = os.open(path, os.O_RDONLY)
    try:
        return loop.attach(fd, Window(0, path.stat().st_size), image=str(path), readonly=True)
    finally:
        os.close(fd)


@pytest.mark.needs("qemu-img")
def test_an_image_on_a_block_device_is_told_by_its_content_and_the_devices_number(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "24M"])
    os.truncate(path, MIB)
    device = attach(path)
    try:
        image = identify(device.fd, device.path)
        assert (image.format, image.virtual_size, image.file_size) == ("qcow2", 24 * MIB, MIB)
        assert image.is_block_device
        assert image.identity == (os.fstat(device.fd).st_rdev, 0, MIB, 0)
    finally:
        device.detach()


@pytest.mark.needs("mke2fs", "libblkid")
def test_a_superblock_is_found_on_a_block_device(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, 16 * MIB)
    run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "inside", "-E", f"offset={4 * MIB}", str(path), "8M"])
    device = attach(path)
    try:
        found = probe(device.fd, Window(4 * MIB, 8 * MIB))
        assert found is not None
        assert (found.type, found.label) == ("ext4", "inside")
        assert probe(device.fd, Window(0, 4 * MIB)) is None
    finally:
        device.detach()
