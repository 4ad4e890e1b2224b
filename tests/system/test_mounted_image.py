"""The main job by its fixture: every way to a block device, and what a test holds then."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount import File, Symlink
from pytest_imagemount.engine.loop import tag_of
from pytest_imagemount.engine.mountinfo import MountEntry, mounts
from pytest_imagemount.errors import CapabilityMissing, RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_imagemount.plugin import MountFactory

    ImageBuilder = Callable[..., Path]

pytestmark = pytest.mark.needs("privileged", "loop", "ext4", "mke2fs")

WAYS = [
    pytest.param("raw", "loop", id="raw-loop"),
    pytest.param("qcow2", "fuse", id="qcow2-fuse", marks=pytest.mark.needs("fuse", "qemu-img")),
    pytest.param("qcow2", "nbd", id="qcow2-nbd", marks=pytest.mark.needs("nbd", "qemu", "qemu-img")),
    pytest.param("vmdk", "fuse", id="vmdk-fuse", marks=pytest.mark.needs("fuse", "qemu-img")),
    pytest.param("vdi", "nbd", id="vdi-nbd", marks=pytest.mark.needs("nbd", "qemu", "qemu-img")),
    pytest.param("raw", "fuse", id="raw-fuse", marks=pytest.mark.needs("fuse")),
    pytest.param("raw", "nbd", id="raw-nbd", marks=pytest.mark.needs("nbd", "qemu")),
]
WEB01 = {
    "etc/hostname": "web01\n",
    "bin/x": File(b"#!/bin/sh\n", mode=0o4755, uid=0),
    "link": Symlink("/etc/hostname"),
}


def two_partitions(image_factory: ImageBuilder, **options: Any) -> Path:
    return image_factory(
        table=options.pop("table", "gpt"),
        partitions=[
            {"fstype": "ext4", "name": "system", "label": "root", "content": WEB01},
            {"fstype": "ext4", "name": "data", "content": {"data.txt": "second"}},
        ],
        **options,
    )


def mount_at(target: Path) -> MountEntry | None:
    return next((entry for entry in mounts() if entry.target == target), None)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(("format", "backend"), WAYS)
def test_files_of_a_partition_are_read(
    format: str, backend: str, image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    disk = two_partitions(image_factory, format=format)
    before = sha256(disk)
    with mounted_image(disk, partition=1, backend=backend) as image:
        assert (image / "etc/hostname").read_text() == "web01\n"
        assert (image / "link").read_text() == "web01\n"
        assert (image / "bin/x").stat().st_mode & 0o7777 == 0o4755
        assert (image.format, image.partition, image.fstype, image.mode) == (format, 1, "ext4", "ro")
        assert (image.backend, image.label, image.source) == (backend, "root", disk)
        entry = mount_at(image.root)
        assert entry is not None
        assert {"ro", "nosuid", "nodev"} <= entry.options
        root = image.root
    with mounted_image(disk, partition=2, backend=backend) as image:
        assert (image.root / "data.txt").read_text() == "second"
    assert mount_at(root) is None
    assert not root.exists()
    assert sha256(disk) == before


@pytest.mark.parametrize(("format", "backend"), WAYS)
def test_what_overlay_mode_writes_is_thrown_away(
    format: str, backend: str, image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    if backend == "loop":
        backend = "auto"  # overlay needs the storage daemon, for raw too
    disk = two_partitions(image_factory, format=format)
    before = sha256(disk)
    with mounted_image(disk, partition=1, mode="overlay", backend=backend) as image:
        (image / "etc/hostname").write_text("changed\n")
        (image / "big").write_bytes(b"x" * 4_000_000)
        os.sync()
        assert (image / "etc/hostname").read_text() == "changed\n"
    assert sha256(disk) == before
    with mounted_image(disk, partition=1, backend=backend) as image:
        assert (image / "etc/hostname").read_text() == "web01\n"
        assert not (image / "big").exists()


@pytest.mark.parametrize(("format", "backend"), WAYS)
def test_what_rw_mode_writes_stays(
    format: str, backend: str, image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    disk = two_partitions(image_factory, format=format)
    with mounted_image(disk, partition=1, mode="rw", backend=backend) as image:
        (image / "etc/hostname").write_text("changed\n")
    with mounted_image(disk, partition=1, backend=backend) as image:
        assert (image / "etc/hostname").read_text() == "changed\n"


def test_an_image_without_a_table_is_mounted_whole(image_factory: ImageBuilder, mounted_image: MountFactory) -> None:
    with mounted_image(image_factory(fstype="ext4", content=WEB01)) as image:
        assert image.partition is None
        assert (image / "etc/hostname").read_text() == "web01\n"


@pytest.mark.parametrize("wanted", ["PARTLABEL=data", "2", "LABEL=second"])
def test_a_partition_is_chosen_by_what_it_is_called(
    wanted: str, image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    disk = image_factory(
        table="gpt",
        partitions=[
            {"fstype": "ext4", "name": "system"},
            {"fstype": "ext4", "name": "data", "label": "second", "content": {"here": ""}},
        ],
    )
    with mounted_image(disk, wanted) as image:
        assert image.partition == 2
        assert (image / "here").exists()


@pytest.mark.parametrize("wanted", ["auto", -1])
def test_the_only_mountable_partition_is_found(
    wanted: int | str, image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    disk = image_factory(
        table="gpt",
        partitions=[
            {"fstype": None, "size": "1M", "type": "bios-boot"},
            {"fstype": "ext4", "content": WEB01},
            {"fstype": "swap", "size": "1M", "type": "swap"},
        ],
    )
    with mounted_image(disk, wanted) as image:
        assert image.partition == 2


def test_logical_partitions_of_an_mbr_are_mounted(image_factory: ImageBuilder, mounted_image: MountFactory) -> None:
    disk = image_factory(
        table="mbr", partitions=[{"fstype": "ext4", "size": "16M", "content": {"n": str(n)}} for n in range(1, 7)]
    )
    with mounted_image(disk, 6) as image:
        assert (image / "n").read_text() in {"4", "5", "6"}


def test_4096_byte_sectors_are_understood(image_factory: ImageBuilder, mounted_image: MountFactory) -> None:
    disk = two_partitions(image_factory, sector_size=4096)
    with mounted_image(disk, 2) as image:
        assert (image / "data.txt").read_text() == "second"


@pytest.mark.parametrize(
    ("fstype", "options"),
    [
        pytest.param("ext2", {}, id="ext2"),
        pytest.param("ext3", {}, id="ext3"),
        pytest.param("vfat", {}, id="vfat", marks=pytest.mark.needs("vfat", "mkfs.vfat", "mtools")),
        pytest.param("xfs", {}, id="xfs", marks=pytest.mark.needs("xfs", "mkfs.xfs")),
        pytest.param("btrfs", {}, id="btrfs", marks=pytest.mark.needs("btrfs", "mkfs.btrfs")),
        pytest.param("squashfs", {}, id="squashfs", marks=pytest.mark.needs("squashfs", "mksquashfs")),
        pytest.param("erofs", {}, id="erofs", marks=pytest.mark.needs("erofs", "mkfs.erofs")),
    ],
)
def test_every_file_system_type_is_told_from_the_superblock(
    fstype: str, options: dict[str, Any], image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    disk = image_factory(fstype=fstype, content={"etc/hostname": "web01\n"}, **options)
    with mounted_image(disk) as image:
        assert image.fstype == fstype
        assert (image / "etc/hostname").read_text() == "web01\n"


@pytest.mark.parametrize("fstype", ["ext4", pytest.param("xfs", marks=pytest.mark.needs("xfs", "mkfs.xfs"))])
def test_one_image_is_mounted_many_times_at_once(
    fstype: str, image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    disk = image_factory(fstype=fstype, content=WEB01)
    images = [mounted_image(disk).__enter__() for _ in range(5)]
    assert len({image.device for image in images}) == 5
    assert {(image / "etc/hostname").read_text() for image in images} == {"web01\n"}


def test_what_is_left_open_is_undone_by_the_fixture(pytester: pytest.Pytester, image_factory: ImageBuilder) -> None:
    disk = two_partitions(image_factory)
    pytester.makepyfile(
        f"""
        from pathlib import Path
        roots = []

        def test_leaves_mounts_open(mounted_image):
            mounted_image({str(disk)!r}, 1)
            for number in (1, 2):
                roots.append(mounted_image({str(disk)!r}, number).__enter__().root)
            assert all(root.is_mount() for root in roots)

        def test_they_are_gone():
            assert len(roots) == 2
            assert not any(root.exists() for root in roots)
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=2)


def test_unmount_ends_it_early_and_leaving_the_context_is_safe(
    image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    pending = mounted_image(image_factory(fstype="ext4", content=WEB01))
    with pending as image:
        root = image.root
        image.unmount()
        assert mount_at(root) is None
    with pending as again:
        assert again.root != root
        assert (again / "etc/hostname").exists()


def test_a_context_manager_that_is_open_is_not_entered_twice(
    image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    pending = mounted_image(image_factory(fstype="ext4"))
    with pending, pytest.raises(RequestInvalid, match="open already"):
        pending.__enter__()


def test_a_caller_chooses_the_mount_point(
    image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disk, target = image_factory(fstype="ext4", content=WEB01), tmp_path / "here"
    target.mkdir()
    with mounted_image(disk, mountpoint=target) as image:
        assert image.root == target
        assert (target / "etc/hostname").read_text() == "web01\n"
    assert list(target.iterdir()) == []


def test_a_mount_point_that_is_not_empty_is_refused(
    image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    (tmp_path / "mine").touch()
    with (
        pytest.raises(RequestInvalid, match="not empty"),
        mounted_image(image_factory(fstype="ext4"), mountpoint=tmp_path),
    ):
        pass


def test_mount_options_reach_the_file_system(image_factory: ImageBuilder, mounted_image: MountFactory) -> None:
    disk = image_factory(fstype="ext4")
    with mounted_image(disk, options=["noexec,noatime", "errors=panic"]) as image:
        entry = mount_at(image.root)
        assert entry is not None
        assert {"noexec", "noatime", "errors=panic"} <= entry.options


@pytest.mark.parametrize("option", ["rw", "suid", "dev", "journal_path=/dev/sda", "loop"])
def test_mount_options_that_are_not_the_callers_are_refused(
    option: str, image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    with (
        pytest.raises(RequestInvalid, match=re.escape(option)),
        mounted_image(image_factory(fstype="ext4"), options=[option]),
    ):
        pass


def test_a_dirty_journal_mounts_read_only_without_a_change(
    image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disk = image_factory(fstype="ext4", content=WEB01)
    crashed = tmp_path / "crashed.raw"
    with mounted_image(disk, mode="rw") as image:
        (image / "new").write_text("x")
        os.sync()
        crashed.write_bytes(disk.read_bytes())  # as a power cut leaves it: the journal is not replayed
    before = sha256(crashed)
    with mounted_image(crashed) as image:
        assert (image / "etc/hostname").read_text() == "web01\n"
    assert sha256(crashed) == before
    with mounted_image(crashed, mode="overlay") as image:
        assert (image / "new").read_text() == "x"
    assert sha256(crashed) == before


@pytest.mark.needs("root")
def test_the_loop_device_says_that_it_is_ours(image_factory: ImageBuilder, mounted_image: MountFactory) -> None:
    disk = image_factory(fstype="ext4", name="tagged.raw")
    with mounted_image(disk) as image:
        number = int(image.device.removeprefix("/dev/loop"))
        assert re.fullmatch(r"imagemount:\d+-[0-9a-f]{8}:\d+:tagged.raw", tag_of(number) or "")
        assert Path(f"/sys/block/loop{number}/loop/autoclear").read_text() == "1\n"


def test_nbd_that_is_missing_is_named_with_its_remedy(image_factory: ImageBuilder, mounted_image: MountFactory) -> None:
    if Path("/sys/module/nbd").exists():
        pytest.skip("needs a kernel without nbd")
    with (
        pytest.raises(CapabilityMissing, match=r"nbd.*modprobe nbd"),
        mounted_image(image_factory(fstype="ext4"), backend="nbd"),
    ):
        pass


def test_a_relative_path_is_found_beside_the_test(pytester: pytest.Pytester, image_factory: ImageBuilder) -> None:
    folder = pytester.mkdir("sub")
    image_factory(fstype="ext4", content=WEB01).rename(folder / "disk.raw")
    (folder / "test_it.py").write_text(
        "def test_it(mounted_image):\n"
        "    with mounted_image('disk.raw') as image:\n"
        "        assert (image / 'etc/hostname').exists()\n"
    )
    pytester.runpytest_subprocess("sub/test_it.py").assert_outcomes(passed=1)
