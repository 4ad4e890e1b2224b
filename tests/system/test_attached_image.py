"""Block devices without a mount: whole disks, partitions, partition nodes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine import loop
from pytest_imagemount.engine.holders import users_of
from pytest_imagemount.engine.target import Target
from pytest_imagemount.errors import RequestInvalid
from tests.unit.disks import sun_sector

from .test_mounted_image import WAYS, two_partitions

if TYPE_CHECKING:
    from pytest_imagemount.plugin import AttachFactory

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs")


def label_of(device: Path) -> str:
    done = subprocess.run(
        ["blkid", "-p", "-s", "LABEL", "-o", "value", device], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(("format", "backend"), WAYS)
def test_the_whole_disk_is_attached(
    format: str, backend: str, image_factory: ImageBuilder, attached_image: AttachFactory
) -> None:
    disk = two_partitions(image_factory, format=format)
    with attached_image(disk, backend=backend) as device:
        assert device.path.is_block_device()
        assert device.partition is None
        content = device.path.read_bytes()
        assert len(content) == device.size
        assert content[512:520] == b"EFI PART"
        sysfs = Path("/sys/block") / device.path.name
        assert (sysfs / "ro").read_text() == "1\n"
        path = device.path
    assert not (Path("/sys/block") / path.name / "loop").exists()
    assert not (Path("/sys/block") / path.name / "pid").exists()


@pytest.mark.parametrize(("format", "backend"), WAYS)
def test_one_partition_is_attached(
    format: str, backend: str, image_factory: ImageBuilder, attached_image: AttachFactory
) -> None:
    disk = two_partitions(image_factory, format=format)
    with attached_image(disk, 1, backend=backend) as device:
        assert device.partition == 1
        assert label_of(device.path) == "root"


@pytest.mark.parametrize(("format", "backend"), WAYS)
def test_partition_nodes_are_made_on_request(
    format: str, backend: str, image_factory: ImageBuilder, attached_image: AttachFactory
) -> None:
    disk = two_partitions(image_factory, format=format)
    with attached_image(disk, partitions=True, backend=backend) as device:
        assert list(device.partitions) == [1, 2]
        assert device.partitions[1] == Path(f"{device.path}p1")
        assert label_of(device.partitions[1]) == "root"
        nodes = list(device.partitions.values())
    assert not any(node.exists() for node in nodes)


def test_partition_nodes_of_4096_byte_sectors(image_factory: ImageBuilder, attached_image: AttachFactory) -> None:
    disk = two_partitions(image_factory, sector_size=4096)
    with attached_image(disk, partitions=True) as device:
        assert (Path("/sys/block") / device.path.name / "queue/logical_block_size").read_text() == "4096\n"
        assert label_of(device.partitions[1]) == "root"


def test_partition_nodes_of_logical_partitions_and_of_what_they_lie_in(
    image_factory: ImageBuilder, attached_image: AttachFactory
) -> None:
    parts = [{"fstype": "ext4", "label": f"part{number}", "size": "2M"} for number in (1, 2, 3, 5, 6)]
    with attached_image(image_factory(table="mbr", partitions=parts), partitions=True) as device:
        assert list(device.partitions) == [1, 2, 3, 4, 5, 6]
        assert device.partitions[4].read_bytes()[510:] == b"\x55\xaa" + bytes(512)  # the first link, and no more
        assert [label_of(device.partitions[number]) for number in (3, 5, 6)] == ["part3", "part5", "part6"]


def test_a_slice_of_the_whole_disk_is_no_obstacle(tmp_path: Path, attached_image: AttachFactory) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(sun_sector([(0, 800, 2), (100, 800, 4), (0, 2048, 5)]).ljust(1 << 20, b"\0"))
    with attached_image(disk, partitions=True) as device:
        assert list(device.partitions)[:2] == [1, 2]  # a kernel that scans by itself makes the third too


def test_a_writable_device_writes_to_the_image(image_factory: ImageBuilder, attached_image: AttachFactory) -> None:
    disk = image_factory(partitions=[], size="1M")
    with attached_image(disk, mode="rw") as device, device.path.open("r+b") as file:
        file.write(b"mark")
    assert disk.read_bytes()[:4] == b"mark"


def test_partition_nodes_of_a_partition_are_refused(image_factory: ImageBuilder, attached_image: AttachFactory) -> None:
    with pytest.raises(RequestInvalid, match="partitions=True"):
        attached_image(image_factory(fstype="ext4"), 1, partitions=True)


@pytest.mark.parametrize("name", [b"disk\xff.img", b"disk\r.img ", b"disk\nmore"], ids=repr)
def test_the_file_behind_a_loop_device_is_told_whatever_its_name(
    name: bytes, image_factory: ImageBuilder, attached_image: AttachFactory, tmp_path: Path
) -> None:
    image = image_factory(fstype="ext4").rename(tmp_path / os.fsdecode(name))
    with attached_image(image) as device:
        assert loop.backing_file(int(device.path.name.removeprefix("loop"))) == str(image)
        assert users_of(Target.at(tmp_path))[0] == f"{device.path} is attached to {image}"
