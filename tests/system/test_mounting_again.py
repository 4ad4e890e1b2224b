"""An image is mounted again: what is known of it is not read again, and what has changed in it is seen."""

from __future__ import annotations

import os
import shutil
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount import Mount, Wanted, Workspace
from pytest_imagemount.engine import mount
from pytest_imagemount.engine.image import identify
from pytest_imagemount.engine.undo import UndoStack, wait_until
from pytest_imagemount.errors import DeviceFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("root", "ext4", "mke2fs")

WAYS = [
    pytest.param("raw", "loop", "ro", marks=pytest.mark.needs("loop")),
    pytest.param("qcow2", "fuse", "ro", marks=pytest.mark.needs("loop", "fuse", "qemu-img")),
    pytest.param("qcow2", "fuse", "overlay", marks=pytest.mark.needs("loop", "fuse", "qemu-img")),
    pytest.param("qcow2", "nbd", "ro", marks=pytest.mark.needs("nbd", "qemu-img")),
    pytest.param("qcow2", "nbd", "overlay", marks=pytest.mark.needs("nbd", "qemu-img")),
]


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """Of a process whose clock is a minute ahead: to it no image was changed just now."""
    now = time.time
    monkeypatch.setattr("pytest_imagemount.engine.findings.time.time", lambda: now() + 60)
    with Workspace() as workspace:
        yield workspace


@contextmanager
def mounted(workspace: Workspace, disk: Path, backend: str, mode: str) -> Iterator[Path]:
    """The mount point of partition 1."""
    descriptor = os.open(disk, os.O_RDONLY)
    try:
        wanted = Wanted(partition=1, mode=mode)
        with Mount.for_format(identify(descriptor, disk.name), workspace, wanted, backend=backend) as made:
            assert made.mountpoint is not None
            yield made.mountpoint
    finally:
        os.close(descriptor)


def disk_with(image_factory: ImageBuilder, format: str, text: str, **table: str) -> Path:
    partition = {"fstype": "ext4", "size": "16M", "content": {"name": text}, "label": text}
    return image_factory(format=format, partitions=[partition], **({"table": "gpt"} | table))


@pytest.mark.parametrize(("format", "backend", "mode"), WAYS)
def test_an_image_is_read_once_and_mounted_twice(
    format: str,
    backend: str,
    mode: str,
    workspace: Workspace,
    image_factory: ImageBuilder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = disk_with(image_factory, format, "one")
    places = []
    for _ in range(3):
        with mounted(workspace, disk, backend, mode) as place:
            places.append(place)
            assert (place / "name").read_text() == "one"
            if mode == "overlay":
                (place / "name").write_text("two")
        assert not place.exists()
        monkeypatch.setattr(mount, "read_table", _never)
        monkeypatch.setattr(mount, "probe", _never)
        monkeypatch.setattr(mount, "probe_on", _never)
    assert len(set(places)) == 3


def _never(*args: object, **options: object) -> None:
    raise AssertionError("it was read again")


@pytest.mark.parametrize(("format", "backend", "mode"), WAYS)
def test_an_image_that_was_written_over_is_mounted_as_it_is_now(
    format: str, backend: str, mode: str, workspace: Workspace, image_factory: ImageBuilder
) -> None:
    disk, other = disk_with(image_factory, format, "one"), disk_with(image_factory, format, "two", table="mbr")
    times = disk.stat().st_atime_ns, disk.stat().st_mtime_ns
    for _ in range(2):
        with mounted(workspace, disk, backend, mode) as place:
            assert (place / "name").read_text() == "one"
    shutil.copyfile(other, disk)
    os.utime(disk, ns=times)
    for _ in range(2):
        with mounted(workspace, disk, backend, mode) as place:
            assert (place / "name").read_text() == "two"


@pytest.mark.needs("loop")
def test_a_mount_point_is_used_again_under_another_name(workspace: Workspace, image_factory: ImageBuilder) -> None:
    disk = disk_with(image_factory, "raw", "one")
    with mounted(workspace, disk, "loop", "ro") as first, mounted(workspace, disk, "loop", "ro") as second:
        folders = {first.name, second.name}
        assert {entry.name for entry in workspace.folder.glob("mount-*")} == folders
    (spare,) = workspace.folder.glob("mount-*")
    assert spare.name not in folders
    assert list(spare.iterdir()) == []
    with mounted(workspace, disk, "loop", "ro") as third:
        assert third == spare
    assert not third.exists()
    assert len(list(workspace.folder.glob("mount-*"))) == 1


def test_a_mount_point_whose_device_is_held_elsewhere_is_removed(workspace: Workspace) -> None:
    undo = UndoStack()
    target = workspace.make_mountpoint(undo, is_device_gone=lambda: False)
    assert undo.run() == []
    assert not target.path.exists()
    assert list(workspace.folder.glob("mount-*")) == []


@pytest.mark.needs("qemu", "fuse")
def test_an_image_is_mounted_while_one_stands_whose_storage_daemon_has_died(
    workspace: Workspace, image_factory: ImageBuilder
) -> None:
    first, second = disk_with(image_factory, "qcow2", "one"), disk_with(image_factory, "qcow2", "two")
    with mounted(workspace, first, "fuse", "ro"):
        daemon = workspace.daemon
        assert daemon.pid is not None
        os.kill(daemon.pid, signal.SIGKILL)
        assert wait_until(lambda: not daemon.alive, 5)
        with mounted(workspace, second, "fuse", "ro") as place:
            assert (place / "name").read_text() == "two"


@pytest.mark.needs("qemu", "fuse", "qemu-img")
def test_an_image_in_an_image_is_refused_where_the_storage_daemon_would_wait_for_itself(
    workspace: Workspace, image_factory: ImageBuilder
) -> None:
    inner = disk_with(image_factory, "qcow2", "inner")
    content = {"inner.qcow2": inner.read_bytes()}
    outer = image_factory(
        format="qcow2", table="gpt", partitions=[{"fstype": "ext4", "size": "64M", "content": content}]
    )
    with (
        mounted(workspace, outer, "fuse", "ro") as place,
        pytest.raises(DeviceFailed, match=r"a file of image .*\.qcow2'.*copy it out of there first"),
        mounted(workspace, place / "inner.qcow2", "fuse", "ro"),
    ):
        pytest.fail("it would wait for itself")
    with mounted(workspace, inner, "fuse", "ro") as first, mounted(workspace, inner, "fuse", "ro") as second:
        assert (first / "name").read_text() == (second / "name").read_text() == "inner"
