"""Mount.for_device: devices that somebody else attached are taken down stage by stage."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount import Mount, Wanted
from pytest_imagemount.engine import loop, syscalls
from pytest_imagemount.engine.reader import FileReader, Window
from pytest_imagemount.engine.stages import State
from pytest_imagemount.engine.tables.partition_nodes import add_nodes
from pytest_imagemount.engine.tables.read import read_table
from pytest_imagemount.engine.undo import UndoStack
from pytest_imagemount.errors import DeviceFailed, StageError

from .test_mounted_image import two_partitions

if TYPE_CHECKING:
    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs")


def losetup(disk: Path, *options: str) -> Path:
    done = subprocess.run(["losetup", "--find", "--show", *options, disk], capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def mount(device: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    syscalls.mount(str(device), str(target), "ext4", syscalls.MS_RDONLY, "")


def is_attached(device: Path) -> bool:
    folder = Path("/sys/block") / device.name
    return (folder / "loop").exists() or (folder / "pid").exists()


def with_nodes(disk: Path) -> loop.LoopDevice:
    """A loop device with partition nodes, as losetup -P makes it where the kernel can; it holds until it is armed."""
    with disk.open("rb") as file:
        size = disk.stat().st_size
        device = loop.attach(file.fileno(), Window(0, size), image=disk.name, readonly=True, partition_nodes=True)
        table = read_table(FileReader(file.fileno(), size), disk.name)
    assert table is not None
    add_nodes(device, table, UndoStack())
    return device


def test_a_mounted_loop_device_is_taken_down(image_factory: ImageBuilder, tmp_path: Path) -> None:
    device = losetup(image_factory(fstype="ext4"))
    mount(device, tmp_path / "m")
    adopted = Mount.for_device(device)
    assert (adopted.state, adopted.partition, adopted.mountpoints) == (State.MOUNTED, None, [tmp_path / "m"])
    adopted.unmount()
    assert not (tmp_path / "m").is_mount()
    assert adopted.state is State.MAPPED
    adopted.unmap()
    adopted.detach()
    assert not is_attached(device)


def test_a_device_that_is_not_mounted_starts_as_mapped(image_factory: ImageBuilder) -> None:
    device = losetup(image_factory(fstype="ext4"))
    adopted = Mount.for_device(device)
    assert adopted.state is State.MAPPED
    with pytest.raises(StageError, match="unmount"):
        adopted.unmount()
    adopted.close()
    assert not is_attached(device)


def test_a_kernel_partition_node_is_adopted(image_factory: ImageBuilder, tmp_path: Path) -> None:
    device = with_nodes(two_partitions(image_factory))
    mount(Path(f"{device.path}p2"), tmp_path / "m")
    device.arm()
    adopted = Mount.for_device(f"{device.path}p2")
    assert (adopted.partition, adopted.disk.name) == (2, Path(device.path).name)
    adopted.close()
    assert not (tmp_path / "m").is_mount()
    assert not is_attached(Path(device.path))


def test_a_partition_whose_sibling_is_in_use_does_not_take_the_disk_with_it(
    image_factory: ImageBuilder, tmp_path: Path
) -> None:
    device = with_nodes(two_partitions(image_factory))
    mount(Path(f"{device.path}p1"), tmp_path / "m1")
    mount(Path(f"{device.path}p2"), tmp_path / "m2")
    device.arm()
    adopted = Mount.for_device(f"{device.path}p2")
    adopted.unmount()
    adopted.unmap()
    with pytest.raises(DeviceFailed, match=str(tmp_path / "m1")):
        adopted.detach()
    assert (tmp_path / "m1").is_mount()
    Mount.for_device(device.path).close()
    assert not is_attached(Path(device.path))


@pytest.mark.needs("device-mapper", "kpartx")
@pytest.mark.parametrize("named", ["disk", "mapping"])
def test_a_kpartx_mapping_is_adopted(named: str, image_factory: ImageBuilder, tmp_path: Path) -> None:
    device = losetup(two_partitions(image_factory))
    subprocess.run(["kpartx", "-a", "-s", device], check=True)
    first, second = (Path(f"/dev/mapper/{device.name}p{number}") for number in (1, 2))
    mount(first, tmp_path / "m")
    if named == "disk":
        adopted = Mount.for_device(device)
        assert adopted.state is State.MOUNTED
        adopted.close()
    else:
        adopted = Mount.for_device(first)
        assert (adopted.partition, adopted.disk.name) == (1, device.name)
        adopted.unmount()
        adopted.unmap()
        with pytest.raises(DeviceFailed, match=second.name):
            adopted.detach()
        Mount.for_device(second).close()
    assert not first.exists()
    assert not second.exists()
    assert not is_attached(device)


@pytest.mark.needs("nbd", "qemu-img")
def test_a_device_that_qemu_nbd_connected_is_taken_down(image_factory: ImageBuilder, tmp_path: Path) -> None:
    disk, device = image_factory(fstype="ext4", format="qcow2"), Path("/dev/nbd3")
    subprocess.run(["qemu-nbd", "--connect", device, "--format", "qcow2", "--read-only", disk], check=True)
    mount(device, tmp_path / "m")
    Mount.for_device(device).close()
    assert not (tmp_path / "m").is_mount()
    assert not is_attached(device)


def test_what_is_no_image_device_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeviceFailed, match="not a block device"):
        Mount.for_device(tmp_path / "file")
    with pytest.raises(DeviceFailed, match=r"nothing is attached|No such"):
        Mount.for_device("/dev/loop7")


def test_the_stages_work_in_process(image_factory: ImageBuilder) -> None:
    from pytest_imagemount import Workspace
    from pytest_imagemount.engine.image import identify

    disk = two_partitions(image_factory)
    with disk.open("rb") as file, Workspace() as workspace:
        image = identify(file.fileno(), disk.name)
        stages = Mount.for_format(image, workspace, Wanted(partition=1))
        with pytest.raises(StageError, match="state 'new'"):
            stages.mount()
        stages.attach()
        stages.map()
        stages.mount()
        assert stages.state is State.MOUNTED
        assert stages.mountpoint is not None
        assert (stages.mountpoint / "etc/hostname").read_text() == "web01\n"
        stages.unmount()
        stages.unmap()
        stages.detach()
        with pytest.raises(StageError, match="state 'new'"):
            stages.detach()
        with Mount.for_format(image, workspace, Wanted(partition=2)) as again:
            assert again.mountpoint is not None
            assert (again.mountpoint / "data.txt").exists()
