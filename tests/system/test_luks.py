"""LUKS 1 and 2 by passphrase and by key file: every way to a block device, and what is wrong is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.errors import PassphraseRequired, PassphraseWrong, VolumeInvalid

from .volume_images import FILES, MIB, PASSPHRASE, blank, copy_to, loops, luks_format, luks_open, run, sha256, write_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_imagemount.plugin import AttachFactory, MountFactory, SystemFactory

    ImageBuilder = Callable[..., Path]

pytestmark = pytest.mark.needs("root", "loop", "device-mapper", "cryptsetup", "ext4", "mke2fs")

KINDS = ["luks1", "luks2"]


def encrypted(image_factory: ImageBuilder, folder: Path, kind: str = "luks2", **options: Any) -> Path:
    """A disk that is nothing but an encrypted ext4."""
    disk = blank(folder / f"{kind}.raw", 32 * MIB)
    luks_format(disk, kind=kind, **options)
    inside = image_factory(fstype="ext4", content=FILES, size="8M", label="secret")
    with loops((disk, 0, None)) as [device], luks_open(str(device)) as opened:
        copy_to(opened, inside)
    return disk


@pytest.mark.parametrize("kind", KINDS)
def test_a_passphrase_opens_the_disk_and_nothing_changes(
    kind: str, image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disk = encrypted(image_factory, tmp_path, kind)
    before = sha256(disk)
    with mounted_image(disk, passphrase=PASSPHRASE) as image:
        assert (image / "etc/hostname").read_text() == "vault\n"
        assert (image.label, image.fstype, image.mode) == ("secret", "ext4", "ro")
        assert image.device.startswith("/dev/dm-")
        assert (Path("/sys/block") / Path(image.device).name / "ro").read_text() == "1\n"
    assert sha256(disk) == before


@pytest.mark.parametrize(
    "backend",
    [pytest.param("fuse", marks=pytest.mark.needs("fuse")), pytest.param("nbd", marks=pytest.mark.needs("nbd"))],
)
@pytest.mark.needs("qemu-img")
def test_a_key_file_opens_a_partition_of_a_qcow2(
    backend: str, image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    plain = encrypted(image_factory, tmp_path)
    disk = image_factory(table="gpt", partitions=[{"fstype": None, "size": "40M"}, {"fstype": "ext4"}])
    write_at(disk, MIB, plain.read_bytes())
    packed = tmp_path / "disk.qcow2"
    run("qemu-img", "convert", "-O", "qcow2", disk, packed)
    before = sha256(packed)
    key = tmp_path / "key"
    key.write_text(PASSPHRASE)
    for partition in (1, "auto"):
        with mounted_image(packed, partition, key_file=key, backend=backend) as image:
            assert (image / "etc/hostname").read_text() == "vault\n"
            assert (image.partition, image.backend) == (1, backend)
    assert sha256(packed) == before


def test_of_an_encrypted_system_what_is_not_encrypted_is_mounted_too(
    image_factory: ImageBuilder, mounted_system: SystemFactory, tmp_path: Path
) -> None:
    fstab = "/dev/mapper/sda2_crypt / ext4 defaults 0 1\nLABEL=boot /boot ext4 defaults 0 2\n"
    root = {"etc/os-release": "ID=debian\n", "etc/fstab": fstab, "boot/under": ""}
    boot = {"fstype": "ext4", "label": "boot", "content": {"kernel": "6.1"}}
    disk = image_factory(table="gpt", partitions=[boot, {"size": "32M"}])
    encrypted = blank(tmp_path / "root.luks", 32 * MIB)
    luks_format(encrypted)
    with loops((encrypted, 0, None)) as [device], luks_open(device) as opened:
        copy_to(opened, image_factory(fstype="ext4", content=root, size="8M"))
    write_at(disk, 17 * MIB, encrypted.read_bytes())
    before = sha256(disk)
    with mounted_system(disk, passphrase=PASSPHRASE) as system:
        assert system.partition == 2
        assert system.os.id == "debian"
        assert [(target, image.partition) for target, image in system.submounts.items()] == [("/boot", 1)]
        assert (system / "boot/kernel").read_text() == "6.1"
    assert sha256(disk) == before


def test_what_is_written_to_an_encrypted_disk_is_there_the_next_time(
    image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disk = encrypted(image_factory, tmp_path)
    with mounted_image(disk, mode="rw", passphrase=PASSPHRASE) as image:
        (image / "new").write_text("kept")
    before = sha256(disk)
    with mounted_image(disk, mode="overlay", passphrase=PASSPHRASE) as image:
        assert (image / "new").read_text() == "kept"
        (image / "new").write_text("thrown away")
    assert sha256(disk) == before
    assert b"kept" not in disk.read_bytes()


def test_two_copies_are_open_at_once(image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path) -> None:
    disk = encrypted(image_factory, tmp_path)
    copy = tmp_path / "copy.raw"
    copy.write_bytes(disk.read_bytes())
    with mounted_image(disk, passphrase=PASSPHRASE) as one, mounted_image(copy, passphrase=PASSPHRASE) as two:
        assert one.device != two.device
        assert (one / "etc/hostname").read_text() == (two / "etc/hostname").read_text() == "vault\n"


def test_the_device_of_what_is_encrypted_is_attached(
    image_factory: ImageBuilder, attached_image: AttachFactory, tmp_path: Path
) -> None:
    disk = encrypted(image_factory, tmp_path)
    with attached_image(disk, passphrase=PASSPHRASE) as device:
        assert device.path.read_bytes()[1024 + 56 : 1024 + 58] == b"\x53\xef"  # the magic number of ext4
        assert device.size == device.path.stat().st_size or device.size == len(device.path.read_bytes())
    with attached_image(disk) as device:
        assert device.path.read_bytes()[:6] == b"LUKS\xba\xbe"
        assert device.size == disk.stat().st_size


def test_errors_say_what_is_wrong_with_the_key(
    image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disk = encrypted(image_factory, tmp_path)
    with pytest.raises(PassphraseRequired, match=r"encrypted \(LUKS\).*passphrase="), mounted_image(disk):
        pass
    with (
        pytest.raises(PassphraseWrong, match="no key slot opens") as wrong,
        mounted_image(disk, passphrase="guess-4711"),
    ):
        pass
    assert "4711" not in str(wrong.value)
    with (
        pytest.raises(VolumeInvalid, match="nothing on the way is encrypted"),
        mounted_image(image_factory(fstype="ext4"), passphrase=PASSPHRASE),
    ):
        pass


def test_the_secret_is_in_no_command_line_and_no_journal(
    image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = encrypted(image_factory, tmp_path)
    caplog.set_level("DEBUG")
    with mounted_image(disk, passphrase=PASSPHRASE) as image:
        folder = image.root.parent
        assert PASSPHRASE not in repr(image)
        assert all(
            PASSPHRASE.encode() not in file.read_bytes()
            for file in folder.rglob("*")
            if file.is_file() and image.root not in file.parents
        )
        assert PASSPHRASE not in run("dmsetup", "table")
    assert PASSPHRASE not in caplog.text
