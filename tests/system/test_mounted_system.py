"""Whole systems: root, fstab and partition types, mounted as they would be when the image boots."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount import mount_image
from pytest_imagemount.engine.tables.discoverable import root_type_name
from pytest_imagemount.engine.workspace import Owner, Workspace
from pytest_imagemount.errors import (
    ImageInvalid,
    PartitionAmbiguous,
    PartitionNotFound,
    PassphraseRequired,
    RequestInvalid,
    VolumeNotFound,
)
from pytest_imagemount.helper.operations import Mounts
from pytest_imagemount.helper.protocol import Open
from pytest_imagemount.inspection import inspect
from pytest_imagemount.inspection_os import System, read_system
from pytest_imagemount.programs import run

from .volume_images import blank, luks_format, write_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pytest_imagemount.plugin import MountFactory, SystemFactory

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("privileged", "loop", "ext4", "mke2fs")

ROOT_UUID, BOOT_UUID = "11111111-2222-4333-8444-555555555555", "66666666-7777-4888-8999-aaaaaaaaaaaa"
FSTAB = f"""\
UUID={ROOT_UUID} / ext4 defaults 0 1
UUID={BOOT_UUID} /boot ext4 defaults,noatime 0 2
PARTLABEL=data /srv/data ext4 nofail 0 0
LABEL=absent /mnt ext4 nofail 0 0
LABEL=swap none swap sw 0 0
server:/export /net nfs defaults 0 0
UUID={BOOT_UUID} /rescue ext4 noauto 0 0
"""
SKELETON = {"etc/os-release": "ID=test\n", "boot/under": "", "srv/data/under": "", "mnt/under": "", "home/under": ""}


def partitions(fstab: str | None = FSTAB, **root: Any) -> list[dict[str, Any]]:
    content = {**SKELETON, **({"etc/fstab": fstab} if fstab is not None else {}), **root}
    return [
        {"fstype": "ext4", "fs_uuid": ROOT_UUID, "content": content},
        {"fstype": "ext4", "fs_uuid": BOOT_UUID, "content": {"vmlinuz": "kernel"}},
        {"fstype": "ext4", "name": "data", "content": {"file": "data", "escape": "x"}},
    ]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


FORMATS = [
    "raw",
    pytest.param("qcow2", marks=pytest.mark.needs("qemu", "qemu-img")),
]


@pytest.mark.parametrize("format", FORMATS)
def test_fstab_decides_what_is_mounted_where(
    format: str, image_factory: ImageBuilder, mounted_system: SystemFactory
) -> None:
    disk = image_factory(format=format, table="gpt", partitions=partitions())
    before = sha256(disk)
    with mounted_system(disk) as system:
        assert system.partition == 1
        assert list(system.submounts) == ["/boot", "/srv/data"]
        assert (system / "boot/vmlinuz").read_text() == "kernel"
        assert (system / "srv/data/file").read_text() == "data"
        assert not (system / "boot/under").exists()
        assert system.submounts["/boot"].uuid == BOOT_UUID
        assert (system.submounts["/boot"] / "vmlinuz").read_text() == "kernel"
        assert [(one.source, one.target) for one in system.skipped] == [
            ("LABEL=swap", "none"),
            ("server:/export", "/net"),
            (f"UUID={BOOT_UUID}", "/rescue"),
            ("LABEL=absent", "/mnt"),
        ]
        assert (system.root / "boot/vmlinuz").read_text() == "kernel"
    assert sha256(disk) == before


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("mode", ["overlay", "rw"])
def test_a_system_can_be_written_to(
    mode: str, format: str, image_factory: ImageBuilder, mounted_system: SystemFactory
) -> None:
    disk = image_factory(format=format, table="gpt", partitions=partitions())
    before = sha256(disk)
    with mounted_system(disk, mode=mode) as system:
        (system / "boot/vmlinuz").write_text("newer")
        (system / "etc/hostname").write_text("web02\n")
        assert (system.submounts["/boot"] / "vmlinuz").read_text() == "newer"
    assert (sha256(disk) == before) == (mode == "overlay")
    with mounted_system(disk) as system:
        assert (system / "boot/vmlinuz").read_text() == ("newer" if mode == "rw" else "kernel")
        assert (system / "etc/hostname").exists() == (mode == "rw")


def test_partition_types_place_what_fstab_does_not_mention(
    image_factory: ImageBuilder, mounted_system: SystemFactory
) -> None:
    disk = image_factory(
        table="gpt",
        partitions=[
            {"fstype": "ext4", "content": {"file": "of home"}, "type": "933ac7e1-2eb4-4f13-b844-0e14e2aef915"},
            {"fstype": "ext4", "content": {"loader/x": ""}, "type": "bc13c2ff-59e6-4262-a352-b275fd6f7172"},
            {"fstype": "ext4", "content": SKELETON},
        ],
    )
    with mounted_system(disk) as system:
        assert system.partition == 3
        assert list(system.submounts) == ["/home", "/boot"]
        assert (system / "home/file").read_text() == "of home"


def test_an_image_without_a_table_is_its_own_root(image_factory: ImageBuilder, mounted_system: SystemFactory) -> None:
    disk = image_factory(fstype="ext4", content=SKELETON)
    with mounted_system(disk) as system:
        assert system.submounts == {}
        assert system.partition is None


def test_what_the_system_cannot_boot_without_is_an_error_that_leaves_nothing(
    image_factory: ImageBuilder, mounted_system: SystemFactory
) -> None:
    fstab = f"UUID={BOOT_UUID} /boot ext4 defaults 0 2\nLABEL=absent /mnt ext4 defaults 0 0\n"
    disk = image_factory(table="gpt", partitions=partitions(fstab))
    with pytest.raises(PartitionNotFound) as caught:
        mounted_system(disk).__enter__()
    assert caught.value.__notes__ == ["LABEL=absent belongs at /mnt, by /etc/fstab of the image"]


def test_what_the_system_boots_without_may_be_a_volume_that_is_not_there(
    image_factory: ImageBuilder, mounted_system: SystemFactory
) -> None:
    fstab = "/dev/mapper/vg-data /mnt ext4 nofail 0 2\n/dev/mapper/old-data /srv/data ext4 defaults 0 0\n"
    disk = image_factory(table="gpt", partitions=partitions(fstab, **{"etc/crypttab": "# x\n\nold-data /dev/sdb1\n"}))
    with mounted_system(disk) as system:
        assert system.submounts == {}
        assert [(one.source, one.reason) for one in system.skipped] == [
            ("/dev/mapper/old-data", "it is encrypted, and /etc/crypttab is not followed"),
            ("lv:vg/data", "nofail, and there is no such volume"),
        ]


def test_a_partition_labelled_none_is_not_taken_for_a_root_without_a_label(
    image_factory: ImageBuilder, mounted_system: SystemFactory
) -> None:
    root, boot, data = partitions("LABEL=None /srv/data ext4 defaults 0 0\n")
    disk = image_factory(table="gpt", partitions=[root, boot, {**data, "label": "None"}])
    with mounted_system(disk) as system:
        assert system.submounts["/srv/data"].partition == 3


def test_an_fstab_with_no_end_of_file_systems_is_an_error(
    image_factory: ImageBuilder, mounted_system: SystemFactory
) -> None:
    fstab = "".join(f"UUID={BOOT_UUID} /mnt/{number} ext4 defaults 0 2\n" for number in range(65))
    folders = {f"mnt/{number}/under": "" for number in range(65)}
    disk = image_factory(table="gpt", partitions=partitions(fstab, **folders))
    with pytest.raises(ImageInvalid, match="has 65 file systems to mount; 64 is the most"):
        mounted_system(disk).__enter__()


def test_a_mount_point_that_leads_out_stays_in(
    image_factory: ImageBuilder, mounted_system: SystemFactory, tmp_path: Path
) -> None:
    from pytest_imagemount import Symlink

    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second / "x"):
        folder.mkdir(parents=True)
    fstab = f"UUID={BOOT_UUID} /absolute ext4 defaults 0 0\nPARTLABEL=data /climbing/x ext4 defaults 0 0\n"
    links = {
        "absolute": Symlink(str(first)),
        "climbing": Symlink("../../../../../../../.." + str(second)),
        f"{first}/under".lstrip("/"): "",
        f"{second}/x/under".lstrip("/"): "",
    }
    disk = image_factory(table="gpt", partitions=partitions(fstab, **links))
    with mounted_system(disk) as system:
        assert sorted(tmp_path.rglob("*")) == [first, second, second / "x"]
        assert (system / str(first) / "vmlinuz").read_text() == "kernel"
        assert (system / str(second) / "x/file").read_text() == "data"
        assert all(one.root.is_relative_to(system.root) for one in system.submounts.values())


def test_a_missing_mount_point_is_an_error(image_factory: ImageBuilder, mounted_system: SystemFactory) -> None:
    disk = image_factory(table="gpt", partitions=partitions(f"UUID={BOOT_UUID} /none ext4 defaults 0 0\n"))
    with pytest.raises(RequestInvalid, match="'/none': the image has no folder there to mount at"):
        mounted_system(disk).__enter__()


@pytest.mark.needs("root")  # the helper's part is played by this process
def test_a_mount_below_another_has_its_mode(image_factory: ImageBuilder) -> None:
    disk = image_factory(table="gpt", partitions=partitions())
    workspace = Workspace()
    mounts = Mounts(workspace, Owner(os.getpid()))
    below: dict[str, Any] = {"partition": 2, "under": 1, "at": "/boot", "carries": ()}
    try:
        mounts.open(Open(1, disk.name, str(disk), test="test", partition=1), [os.open(disk, os.O_RDONLY)])
        with pytest.raises(RequestInvalid, match="below has mode 'ro', and so have all of its image"):
            mounts.open(Open(2, disk.name, str(disk), test="test", mode="rw", **below), [])
        mounts.open(Open(2, disk.name, str(disk), test="test", **below), [])
        assert mounts.below(1) == {2: "boot"}
    finally:
        assert mounts.close() == []
        workspace.close()


def test_an_image_without_a_system_says_why_each_candidate_is_none(
    image_factory: ImageBuilder, mounted_system: SystemFactory
) -> None:
    disk = image_factory(table="gpt", partitions=[{"fstype": "ext4"}, {"fstype": "ext4"}])
    with pytest.raises(PartitionAmbiguous, match="it has no etc/os-release"):
        mounted_system(disk).__enter__()


@pytest.mark.needs("root", "btrfs", "mkfs.btrfs")  # root: btrfs itself makes the subvolumes
@pytest.mark.parametrize("home", ["subvol=/@home", "subvolid=257"])
def test_a_root_subvolume_and_its_neighbours(
    home: str, image_factory: ImageBuilder, mounted_system: SystemFactory, make_subvolumes: Callable[..., None]
) -> None:
    disk = image_factory(fstype="btrfs", label="system", size=256 << 20)
    make_subvolumes(disk, home)
    with mounted_system(disk) as system:
        assert (system / "etc/os-release").exists()
        assert (system / "home/file").read_text() == "of @home"
        assert system.submounts["/home"].device == system.device  # two devices would be two caches of one file system


@pytest.mark.needs("cryptsetup")
def test_the_boot_partition_is_not_taken_for_an_encrypted_system(
    image_factory: ImageBuilder, mounted_system: SystemFactory
) -> None:
    boot = {"fstype": "ext4", "label": "boot", "content": {"vmlinuz": "kernel"}, "size": "8M"}
    disk = image_factory(table="gpt", partitions=[boot, {"size": "32M"}])
    encrypted = disk.with_name("root.luks")
    luks_format(blank(encrypted, 32 << 20))
    write_at(disk, 9 << 20, encrypted.read_bytes())
    with pytest.raises(PassphraseRequired, match=r"partition 2: no system was found.*give passphrase="):
        mounted_system(disk).__enter__()
    with mounted_system(disk, partition=1) as system:
        assert (system / "vmlinuz").exists()
    by_type = image_factory(table="gpt", partitions=[{**boot, "type": root_type_name()}, {"size": "32M"}])
    write_at(by_type, 9 << 20, encrypted.read_bytes())
    with mounted_system(by_type) as system:
        assert (system / "vmlinuz").exists()


@pytest.mark.needs("root", "btrfs", "mkfs.btrfs")
def test_auto_finds_a_system_in_a_subvolume(
    image_factory: ImageBuilder,
    mounted_system: SystemFactory,
    mounted_image: MountFactory,
    make_subvolumes: Callable[..., None],
) -> None:
    boot = {"fstype": "ext4", "content": {"vmlinuz": "kernel"}}
    disk = image_factory(table="gpt", partitions=[boot, {"fstype": "btrfs", "label": "system", "size": 256 << 20}])
    with pytest.raises(PartitionAmbiguous):
        mounted_system(disk).__enter__()
    make_subvolumes(disk, "subvol=@home", 2, snapshots=["@before"])
    with mounted_system(disk) as system:
        assert system.partition == 2
        assert (system / "etc/os-release").read_text() == "ID=test\n"
        assert (system / "home/file").read_text() == "of @home"
    with mounted_image(disk, "auto") as image:
        assert image.partition == 2
        assert (image / "@/etc/os-release").exists()
    assert read_system(inspect(str(disk)), "auto") == System(partition=2, id="test", name="Linux", pretty_name="Linux")


@pytest.mark.needs("root", "btrfs", "mkfs.btrfs")
def test_of_subvolumes_that_all_call_themselves_no_root_none_is_taken(
    image_factory: ImageBuilder, mounted_system: SystemFactory, make_subvolumes: Callable[..., None]
) -> None:
    disk = image_factory(fstype="btrfs", size=256 << 20)
    make_subvolumes(disk, "subvol=@home", snapshots=["@first", "@second"])
    with mount_image(disk, mode="rw") as image:
        (image / "@/etc/os-release").unlink()
    with pytest.raises(VolumeNotFound, match=r"2 subvolumes hold a system.*\n  @first\n  @second"):
        mounted_system(disk).__enter__()


@pytest.fixture
def make_subvolumes() -> Callable[..., None]:
    """Gives a btrfs a subvolume ``@`` with a system and ``@home``, as distributions lay them out.

    The second argument is the option by which fstab says which one ``/home`` is, the last are the names of snapshots
    of ``@``.
    """

    def make(disk: Path, home: str, partition: int | None = None, snapshots: Sequence[str] = ()) -> None:
        with mount_image(disk, partition, mode="rw") as image:
            for name in ("@", "@home"):
                run(["btrfs", "subvolume", "create", str(image.root / name)])
            for folder in ("etc", "home"):
                (image / "@" / folder).mkdir()
            (image / "@/etc/os-release").write_text("ID=test\n")
            line = "LABEL=system /{} btrfs {},compress=zstd 0 0\n"
            (image / "@/etc/fstab").write_text(line.format("", "subvol=@") + line.format("home", home))
            (image / "@home/file").write_text("of @home")
            for name in snapshots:
                run(["btrfs", "subvolume", "snapshot", str(image.root / "@"), str(image.root / name)])

    return make
