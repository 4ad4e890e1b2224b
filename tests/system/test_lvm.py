"""Volume groups of LVM: made by LVM, mapped without it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.engine.reader import FileReader
from pytest_imagemount.engine.tables.read import read_table
from pytest_imagemount.errors import RequestInvalid, VolumeInvalid, VolumeNotFound
from pytest_imagemount.factory.content import Directory

from .volume_images import FILES, MIB, PASSPHRASE, blank, copy_to, loops, luks_format, luks_open, lvm, run, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_imagemount.engine.tables.read import Partition
    from pytest_imagemount.plugin import AttachFactory, MountFactory, SystemFactory

    ImageBuilder = Callable[..., Path]

pytestmark = pytest.mark.needs("root", "loop", "device-mapper", "lvm", "ext4", "mke2fs")

BOOT_UUID = "0f6b6a4e-7f0c-4a1c-9a11-52c5c7a0b001"
FSTAB = f"""
/dev/mapper/rl-root / ext4 defaults 0 0
UUID={BOOT_UUID} /boot ext4 defaults 0 0
LABEL=home /home ext4 defaults 0 0
/dev/mapper/rl-swap none swap sw 0 0
"""
EXTENT = ["--physicalextentsize", "1m"]

KINDS = ["linear", "striped", "mirror", "raid1", "raid0", "origin", "snap", "thin"]


def filesystem(image_factory: ImageBuilder, name: str) -> Path:
    return image_factory(fstype="ext4", content={**FILES, "name": name}, size="4M", label=name[:16])


def fill(image_factory: ImageBuilder, volume: str, name: str) -> None:
    copy_to(Path("/dev/mapper") / volume, filesystem(image_factory, name))


@contextmanager
def group_on(*places: tuple[Path, int, int | None], name: str = "vg") -> Iterator[None]:
    """A new volume group, active while the block runs."""
    with loops(*places) as devices, group_of(devices, name):
        yield


@contextmanager
def encrypted_group(disk: Path) -> Iterator[None]:
    """The same, called inner, inside a new LUKS volume."""
    luks_format(disk)
    with loops((disk, 0, None)) as [device], luks_open(device) as opened, group_of([opened], "inner"):
        yield


@contextmanager
def group_of(devices: list[Path], name: str) -> Iterator[None]:
    lvm("vgcreate", *EXTENT, name, *devices)
    try:
        yield
    finally:
        lvm("vgchange", "--activate", "n", name)


def lvcreate(name: str, size: str, *options: str, group: str = "vg") -> None:
    lvm("lvcreate", "--yes", "--zero", "n", "--wipesignatures", "n", "--name", name, "--size", size, *options, group)


@pytest.fixture(scope="module")
def disks(image_factory: ImageBuilder, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two disks without partitions, in which a volume group has a volume of every kind; each holds its own name."""
    folder = tmp_path_factory.mktemp("group")
    made = [blank(folder / name, 48 * MIB) for name in ("a.raw", "b.raw")]
    with group_on(*[(disk, 0, None) for disk in made]):
        lvcreate("linear", "5m")
        lvcreate("striped", "5m", "--stripes", "2")
        lvcreate("raid0", "5m", "--type", "raid0", "--stripes", "2")
        lvcreate("raid1", "5m", "--type", "raid1", "--mirrors", "1", "--nosync")
        lvcreate("mirror", "5m", "--type", "mirror", "--mirrors", "1", "--mirrorlog", "core", "--nosync")
        lvcreate("origin", "5m")
        for name in ("linear", "striped", "raid0", "raid1", "mirror", "origin"):
            fill(image_factory, f"vg-{name}", name)
        lvm("lvcreate", "--yes", "--snapshot", "--name", "snap", "--size", "6m", "vg/origin")
        fill(image_factory, "vg-snap", "snap")
        lvm("lvcreate", "--yes", "--type", "thin-pool", "--name", "pool", "--size", "8m", "vg")
        lvm("lvcreate", "--yes", "--thin", "--virtualsize", "16m", "--name", "thin", "vg/pool")
        fill(image_factory, "vg-thin", "thin")
    return made


@pytest.fixture(scope="module")
def partitioned(image_factory: ImageBuilder) -> Path:
    """A disk with an ext4, and a volume group on two partitions."""
    sizes = [
        {"fstype": "ext4", "content": {"name": "boot"}},
        {"size": "20M", "type": "lvm"},
        {"size": "20M", "type": "lvm"},
    ]
    disk = image_factory(table="gpt", partitions=sizes)
    windows = [partition.window for partition in read(disk)]
    with group_on(*[(disk, window.offset, window.size) for window in windows[1:]], name="debian"):
        lvcreate("root", "8m", "--stripes", "2", group="debian")
        lvcreate("home", "5m", group="debian")
        fill(image_factory, "debian-root", "root")
        fill(image_factory, "debian-home", "home")
    return disk


@pytest.fixture(scope="module")
def server(image_factory: ImageBuilder) -> Path:
    """A disk as many installers make it: ``/boot`` in a partition, all else in a volume group."""
    boot = {"fstype": "ext4", "label": "boot", "fs_uuid": BOOT_UUID, "content": {"kernel": "6.1"}}
    disk = image_factory(table="gpt", partitions=[boot, {"size": "40M", "type": "lvm"}])
    window = read(disk)[1].window
    content = {
        "etc/os-release": "ID=rocky\n",
        "etc/fstab": FSTAB,
        "name": "root",
        "boot": Directory(),
        "home": Directory(),
    }
    with group_on((disk, window.offset, window.size), name="rl"):
        for name, size in (("root", "12m"), ("home", "8m"), ("swap", "4m")):
            lvcreate(name, size, group="rl")
        root = image_factory(fstype="ext4", label="root", content=content, size="8M")
        copy_to(Path("/dev/mapper/rl-root"), root)
        fill(image_factory, "rl-home", "home")
        run("mkswap", "--label", "swap", "/dev/mapper/rl-swap")
    return disk


def read(disk: Path) -> tuple[Partition, ...]:
    with disk.open("rb") as file:
        table = read_table(FileReader(file.fileno(), disk.stat().st_size), str(disk))
    assert table is not None
    return table.partitions


def hashes(disks: list[Path]) -> list[str]:
    return [sha256(disk) for disk in disks]


def test_volumes_of_every_kind_are_read_and_nothing_changes(disks: list[Path], mounted_image: MountFactory) -> None:
    before = hashes(disks)
    for kind in KINDS:
        if kind == "thin":
            with (
                pytest.raises(VolumeInvalid, match=r"thin pool.*mode='overlay'"),
                mounted_image(disks, volume="vg/thin"),
            ):
                pass
            continue
        with mounted_image(disks, volume=f"vg/{kind}") as image:
            assert (image / "name").read_text() == kind
            assert image.label == kind
            assert image.device.startswith("/dev/dm-")
    assert hashes(disks) == before


@pytest.mark.needs("fuse")
def test_what_is_written_in_overlay_mode_is_thrown_away(disks: list[Path], mounted_image: MountFactory) -> None:
    before = hashes(disks)
    for kind in KINDS:
        with mounted_image(disks, volume=f"vg/{kind}", mode="overlay") as image:
            assert (image / "name").read_text() == kind
            (image / "name").write_text("changed")
            os.sync()
            assert (image / "name").read_text() == "changed"
    assert hashes(disks) == before


def test_what_is_written_to_a_volume_is_there_for_lvm(
    image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disk = blank(tmp_path / "disk.raw", 16 * MIB)
    with group_on((disk, 0, None)):
        lvcreate("root", "5m")
        fill(image_factory, "vg-root", "root")
    with mounted_image(disk, volume="vg/root", mode="rw") as image:
        (image / "new").write_text("kept")
    with loops((disk, 0, None)):
        lvm("vgchange", "--activate", "y", "vg")
        assert run("debugfs", "-R", "cat /new", "/dev/mapper/vg-root") == "kept"
        lvm("vgchange", "--activate", "n", "vg")


def test_what_would_spoil_a_volume_is_refused(disks: list[Path], mounted_image: MountFactory) -> None:
    before = hashes(disks)
    for volume, reason in [("origin", "has snapshots"), ("raid1", "is a mirror"), ("mirror", "is a mirror")]:
        with pytest.raises(VolumeInvalid, match=reason), mounted_image(disks, volume=f"vg/{volume}", mode="rw"):
            pass
    assert hashes(disks) == before


@pytest.mark.parametrize(
    "how",
    [
        {"partition": 2, "volume": "debian/root"},
        {"partition": 3, "volume": "debian/root"},
        {"partition": "lv:debian/root"},
        {"partition": "auto", "volume": "debian/root"},
        {"volume": "debian/root"},
    ],
    ids=str,
)
def test_a_group_on_two_partitions_is_found(
    how: dict[str, Any], partitioned: Path, mounted_image: MountFactory
) -> None:
    before = sha256(partitioned)
    with mounted_image(partitioned, **how) as image:
        assert (image / "name").read_text() == "root"
    assert sha256(partitioned) == before


@pytest.mark.needs("nbd", "qemu-img")
@pytest.mark.parametrize("backend", ["nbd", "fuse"])
def test_a_group_in_a_qcow2_is_found(
    backend: str, partitioned: Path, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disk = tmp_path / "disk.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", partitioned, disk)
    with mounted_image(disk, "lv:debian/root", backend=backend) as image:
        assert (image / "name").read_text() == "root"
        assert (image.backend, image.format) == (backend, "qcow2")


def test_copies_and_an_active_group_of_that_name_do_not_meet(
    partitioned: Path, mounted_image: MountFactory, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.raw"
    copy.write_bytes(partitioned.read_bytes())
    windows = [partition.window for partition in read(copy)[1:]]
    with loops(*[(copy, window.offset, window.size) for window in windows]) as devices:
        lvm("vgchange", "--activate", "y", "debian")
        with (
            mounted_image(partitioned, "lv:debian/root") as one,
            mounted_image(partitioned, "lv:debian/home") as two,
            mounted_image(copy, "lv:debian/root") as three,
        ):
            assert [(image / "name").read_text() for image in (one, two, three)] == ["root", "home", "root"]
            known = lvm("pvs", "--noheadings", "--options", "pv_name").split()
            assert sorted(known) == sorted(map(str, devices)), "LVM sees no physical volume of a mounted image"
            assert lvm("vgs", "--noheadings", "--options", "vg_name").split() == ["debian"]
        lvm("vgchange", "--activate", "n", "debian")


def test_the_device_of_a_volume_is_attached(partitioned: Path, attached_image: AttachFactory) -> None:
    with attached_image(partitioned, 2, volume="debian/home") as device:
        assert device.size == 5 * MIB
        assert run("blkid", "-p", "-s", "LABEL", "-o", "value", device.path).strip() == "home"
        assert device.partition == 2
    with (
        pytest.raises(RequestInvalid, match="a volume has no partition nodes"),
        attached_image(partitioned, volume="debian/home", partitions=True),
    ):
        pass
    with attached_image(partitioned, 2) as device:
        assert device.path.read_bytes()[512:520] == b"LABELONE"


@pytest.mark.needs("fuse", "qemu-img")
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_a_root_in_a_volume_is_found(
    format: str, server: Path, mounted_image: MountFactory, attached_image: AttachFactory, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    run("qemu-img", "convert", "-O", format, server, disk)
    before = sha256(disk)
    for how in ("auto", "LABEL=root"):
        with mounted_image(disk, how) as image:
            assert (image / "name").read_text() == "root"
            assert (image.partition, image.volume, image.label) == (2, "rl/root", "root")
            assert image.title == "disk volume rl/root"
    with mounted_image(disk, "LABEL=boot") as image:
        assert (image.partition, image.volume) == (1, None)
    with mounted_image(disk, "auto", mode="overlay") as image:
        (image / "name").write_text("changed")
    with attached_image(disk, "LABEL=home") as device:
        assert device.volume == "rl/home"
        assert run("blkid", "-p", "-s", "LABEL", "-o", "value", device.path).strip() == "home"
    assert sha256(disk) == before


def test_a_system_in_volumes_is_put_together(server: Path, mounted_system: SystemFactory) -> None:
    with mounted_system(server) as system:
        assert system.volume == "rl/root"
        assert system.os.id == "rocky"
        assert {target: (image.partition, image.volume) for target, image in system.submounts.items()} == {
            "/boot": (1, None),
            "/home": (2, "rl/home"),
        }
        assert (system / "boot/kernel").read_text() == "6.1"
        assert (system / "home/name").read_text() == "home"
        assert [(one.source, one.reason) for one in system.skipped] == [("/dev/mapper/rl-swap", "swap")]


def test_errors_list_the_volumes(partitioned: Path, disks: list[Path], mounted_image: MountFactory) -> None:
    both = r"debian/root +8 MiB\n +debian/home +5 MiB"
    for how in ({"partition": 2}, {"partition": 2, "volume": "debian/swap"}, {"partition": "lv:debian/swap"}):
        with pytest.raises(VolumeNotFound, match=both), mounted_image(partitioned, **how):
            pass
    with pytest.raises(VolumeNotFound, match="no physical volume"), mounted_image(partitioned, 1, volume="debian/root"):
        pass
    with (
        pytest.raises(RequestInvalid, match="volume group and a logical volume"),
        mounted_image(partitioned, "lv:root"),
    ):
        pass
    with (
        pytest.raises(VolumeInvalid, match="vg/striped: it needs the physical volume pv1"),
        mounted_image(disks[0], volume="vg/striped"),
    ):
        pass
    with mounted_image(disks[0], volume="vg/linear") as image:
        assert (image / "name").read_text() == "linear"
    with pytest.raises(RequestInvalid, match="the same file"), mounted_image([disks[0], disks[0]], volume="vg/linear"):
        pass


def test_a_mirror_is_read_from_the_side_that_is_there(disks: list[Path], mounted_image: MountFactory) -> None:
    for disk in disks:
        with mounted_image(disk, volume="vg/raid1") as image:
            assert (image / "name").read_text() == "raid1"


def test_fstab_may_call_a_logical_volume_by_its_uuid(
    image_factory: ImageBuilder, mounted_system: SystemFactory, tmp_path: Path
) -> None:
    disk = blank(tmp_path / "disk.raw", 32 * MIB)
    with group_on((disk, 0, None)):
        lvcreate("root", "10m")
        lvcreate("home", "8m")
        uuid = run("dmsetup", "info", "--columns", "--noheadings", "-o", "uuid", "vg-home").strip()
        fstab = f"/dev/disk/by-id/dm-uuid-{uuid} /home ext4 defaults 0 1\n"
        content = {"etc/os-release": "ID=ubuntu\n", "etc/fstab": fstab, "home": Directory()}
        copy_to(Path("/dev/mapper/vg-root"), image_factory(fstype="ext4", content=content, size="8M"))
        fill(image_factory, "vg-home", "home")
    with mounted_system(disk) as system:
        assert {target: image.volume for target, image in system.submounts.items()} == {"/home": "vg/home"}
        assert system.skipped == ()


@pytest.mark.needs("cryptsetup")
def test_a_system_in_an_encrypted_group_is_found_and_shares_its_devices(
    image_factory: ImageBuilder, mounted_system: SystemFactory, tmp_path: Path
) -> None:
    fstab = "/dev/mapper/inner-home /home ext4 defaults 0 2\n/dev/inner/root /srv ext4 defaults 0 0\n"
    content = {"etc/os-release": "ID=debian\n", "etc/fstab": fstab, "home": Directory(), "srv": Directory()}
    disk = blank(tmp_path / "luks.raw", 48 * MIB)
    with encrypted_group(disk):
        lvcreate("root", "10m", group="inner")
        lvcreate("home", "8m", group="inner")
        fill(image_factory, "inner-home", "home")
        copy_to(Path("/dev/mapper/inner-root"), image_factory(fstype="ext4", content=content, size="8M"))
    before = sha256(disk)
    with mounted_system(disk, passphrase=PASSPHRASE) as system:
        assert (system.volume, system.os.id) == ("inner/root", "debian")
        assert {target: image.volume for target, image in system.submounts.items()} == {
            "/home": "inner/home",
            "/srv": "inner/root",
        }
        assert system.submounts["/srv"].device == system.device  # two devices would be two caches of one file system
        assert (system / "home/name").read_text() == "home"
    assert sha256(disk) == before


@pytest.mark.needs("cryptsetup")
def test_groups_inside_of_luks_and_luks_inside_of_groups(
    image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    outside = blank(tmp_path / "luks.raw", 40 * MIB)
    with encrypted_group(outside):
        lvcreate("root", "5m", group="inner")
        lvcreate("swap", "1m", group="inner")
        fill(image_factory, "inner-root", "inner")
    before = sha256(outside)
    for how in ({"volume": "inner/root"}, {"partition": "lv:inner/root"}, {}, {"partition": "auto"}):
        with mounted_image(outside, passphrase=PASSPHRASE, **how) as image:
            assert (image / "name").read_text() == "inner"
            assert image.volume == "inner/root"
    assert sha256(outside) == before

    within = blank(tmp_path / "group.raw", 40 * MIB)
    with group_on((within, 0, None), name="outer"):
        lvcreate("vault", "32m", group="outer")
        luks_format("/dev/mapper/outer-vault")
        with luks_open("/dev/mapper/outer-vault") as opened:
            copy_to(opened, filesystem(image_factory, "vault"))
    with mounted_image(within, volume="outer/vault", passphrase=PASSPHRASE) as image:
        assert (image / "name").read_text() == "vault"
