"""What cannot be mounted gets an error that names the image, what is wrong and what to do; and nothing is left."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount import errors
from pytest_imagemount.engine import syscalls

from .test_mounted_image import two_partitions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_imagemount.plugin import AttachFactory, MountFactory

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs")

NEEDS_QEMU_IMG = pytest.mark.needs("qemu-img")


def refused(mount: MountFactory, image: Path | str, partition: int | str | None = None, **options: Any) -> str:
    """The text of the error, which is of ours and names the image."""
    with pytest.raises(errors.ImageMountError) as caught, mount(image, partition, **options):
        pass
    text = str(caught.value)
    assert Path(image).name in text
    return f"{type(caught.value).__name__}: {text}"


def qemu_img(*arguments: str | Path) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, stdout=subprocess.DEVNULL)


def test_a_missing_file_lists_where_it_was_looked_for(
    mounted_image: MountFactory, request: pytest.FixtureRequest
) -> None:
    text = refused(mounted_image, "absent.raw")
    assert text.startswith("ImageNotFound:")
    assert str(request.config.rootpath / "absent.raw") in text
    assert str(request.path.parent / "absent.raw") in text


@pytest.mark.parametrize("nothing", ["", [], ()])
def test_no_image_at_all(mounted_image: MountFactory, nothing: Any) -> None:
    with pytest.raises(errors.RequestInvalid, match=r"^image=.*: give the path of an image file$"):
        mounted_image(nothing).__enter__()


def test_a_directory(mounted_image: MountFactory, tmp_path: Path) -> None:
    assert "directory" in refused(mounted_image, tmp_path)


def test_an_empty_file(mounted_image: MountFactory, tmp_path: Path) -> None:
    (tmp_path / "empty.raw").touch()
    assert "empty" in refused(mounted_image, tmp_path / "empty.raw")


@NEEDS_QEMU_IMG
def test_a_truncated_qcow2(mounted_image: MountFactory, image_factory: ImageBuilder) -> None:
    disk = image_factory(fstype="ext4", format="qcow2")
    with disk.open("r+b") as file:
        file.truncate(200_000)
    assert "truncated" in refused(mounted_image, disk)


@NEEDS_QEMU_IMG
def test_a_qcow2_with_feature_bits_from_the_future(mounted_image: MountFactory, image_factory: ImageBuilder) -> None:
    disk = image_factory(fstype="ext4", format="qcow2")
    with disk.open("r+b") as file:
        file.seek(72)
        file.write((1 << 40).to_bytes(8, "big"))
    assert "40" in refused(mounted_image, disk)


@NEEDS_QEMU_IMG
def test_a_backing_file_is_refused_and_named(
    mounted_image: MountFactory, image_factory: ImageBuilder, tmp_path: Path
) -> None:
    base = image_factory(fstype="ext4")
    disk = tmp_path / "overlay.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "raw", disk)
    text = refused(mounted_image, disk)
    assert text.startswith("ImageUnsafe:")
    assert str(base) in text


@NEEDS_QEMU_IMG
def test_an_external_data_file_is_refused_and_named(mounted_image: MountFactory, tmp_path: Path) -> None:
    disk = tmp_path / "split.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'secret.data'}", disk, "16M")
    text = refused(mounted_image, disk)
    assert text.startswith("ImageUnsafe:")
    assert "secret.data" in text


@NEEDS_QEMU_IMG
def test_qcow2_content_inside_a_raw_partition_is_not_followed(
    mounted_image: MountFactory, attached_image: AttachFactory, image_factory: ImageBuilder, tmp_path: Path
) -> None:
    qemu_img("create", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", "-u", tmp_path / "inner.qcow2", "1M")
    disk = image_factory(table="gpt", partitions=[{"fstype": None, "raw": (tmp_path / "inner.qcow2").read_bytes()}])
    refused(mounted_image, disk, 1)
    with attached_image(disk, 1) as device:
        assert device.path.read_bytes()[:4] == b"QFI\xfb"


def test_no_partition_named_on_an_image_with_a_table_prints_the_table(
    mounted_image: MountFactory, image_factory: ImageBuilder
) -> None:
    text = refused(mounted_image, two_partitions(image_factory))
    assert text.startswith("PartitionRequired:")
    assert "system" in text
    assert "data" in text


@pytest.mark.parametrize("number", [0, 99, -2, "99"])
def test_a_wrong_partition_number_prints_the_table(
    number: int | str, mounted_image: MountFactory, image_factory: ImageBuilder
) -> None:
    text = refused(mounted_image, two_partitions(image_factory), number)
    assert text.startswith("PartitionNotFound:")
    assert "system" in text


def test_a_partition_number_on_an_image_without_a_table(
    mounted_image: MountFactory, image_factory: ImageBuilder
) -> None:
    assert "no partition table" in refused(mounted_image, image_factory(fstype="ext4"), 1)


def test_a_partition_by_a_name_that_two_have(mounted_image: MountFactory, image_factory: ImageBuilder) -> None:
    disk = image_factory(
        table="gpt", partitions=[{"fstype": "ext4", "name": "twin"}, {"fstype": "ext4", "name": "twin"}]
    )
    assert refused(mounted_image, disk, "PARTLABEL=twin").startswith("PartitionAmbiguous:")


def test_one_corrupt_gpt_is_mended_by_its_spare(mounted_image: MountFactory, image_factory: ImageBuilder) -> None:
    for place in (512, -512):
        disk = two_partitions(image_factory)
        with disk.open("r+b") as file:
            file.seek(place, 0 if place > 0 else 2)
            file.write(b"\0" * 512)
        with mounted_image(disk, 1) as image:
            assert (image / "etc/hostname").exists()


def test_two_corrupt_copies_of_a_gpt(mounted_image: MountFactory, image_factory: ImageBuilder) -> None:
    disk = two_partitions(image_factory)
    with disk.open("r+b") as file:
        for place, whence in ((512 + 40, 0), (-512 + 40, 2)):
            file.seek(place, whence)
            file.write(b"\xff" * 8)
    assert refused(mounted_image, disk, 1).startswith("PartitionTableInvalid:")


@pytest.mark.needs("mkswap")
def test_a_swap_partition(mounted_image: MountFactory, image_factory: ImageBuilder) -> None:
    disk = image_factory(table="gpt", partitions=[{"fstype": "swap", "size": "1M", "type": "swap"}])
    text = refused(mounted_image, disk, 1)
    assert text.startswith("FilesystemNotMountable:")
    assert "swap" in text


def test_an_encrypted_partition(mounted_image: MountFactory, image_factory: ImageBuilder) -> None:
    # A LUKS1 header as far as anybody looks who does not decrypt: magic, version, cipher names, uuid.
    header = (
        b"LUKS\xba\xbe\0\1" + b"aes".ljust(32, b"\0") + b"xts-plain64".ljust(32, b"\0") + b"sha256".ljust(32, b"\0")
    )
    header = header.ljust(168, b"\0") + b"3e7dbba5-0f4c-4f4a-9d3c-6f1f4c0f2f11".ljust(40, b"\0")
    disk = image_factory(table="gpt", partitions=[{"fstype": None, "raw": header.ljust(4096, b"\0"), "size": "4M"}])
    text = refused(mounted_image, disk, 1)
    assert text.startswith("PassphraseRequired:")
    assert "LUKS" in text


def test_an_unknown_file_system(mounted_image: MountFactory, tmp_path: Path) -> None:
    (tmp_path / "noise.raw").write_bytes(bytes(range(256)) * 8192)
    assert refused(mounted_image, tmp_path / "noise.raw").startswith("FilesystemNotMountable:")


def test_a_damaged_file_system(mounted_image: MountFactory, image_factory: ImageBuilder) -> None:
    disk = image_factory(fstype="ext4")
    with disk.open("r+b") as file:
        file.seek(1024 + 0x20)  # s_blocks_per_group: the superblock is told, but not mountable
        file.write(b"\xff" * 4)
    text = refused(mounted_image, disk)
    assert text.startswith(("MountFailed:", "FilesystemNotMountable:"))


def test_a_file_system_that_is_cut_short(mounted_image: MountFactory, image_factory: ImageBuilder) -> None:
    disk = image_factory(fstype="ext4")
    with disk.open("r+b") as file:
        file.truncate(disk.stat().st_size // 2)
    assert refused(mounted_image, disk).startswith("MountFailed:")


def test_a_type_that_mounts_no_device_is_refused(mounted_image: MountFactory, image_factory: ImageBuilder) -> None:
    with (
        pytest.raises(errors.RequestInvalid, match="tmpfs"),
        mounted_image(image_factory(fstype="ext4"), fstype="tmpfs"),
    ):
        pass


def test_a_format_that_is_not_the_contents(mounted_image: MountFactory, image_factory: ImageBuilder) -> None:
    assert refused(mounted_image, image_factory(fstype="ext4"), format="qcow2").startswith("FormatMismatch:")


def test_a_fifo_does_not_hang(mounted_image: MountFactory, tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    assert refused(mounted_image, tmp_path / "pipe").startswith("ImageInvalid:")


@pytest.fixture
def read_only_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that is mounted read-only, with room made for one image before."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    syscalls.mount("tmpfs", str(folder), "tmpfs", syscalls.MS_NOSUID, "size=64m")
    try:
        yield folder
    finally:
        syscalls.umount2(str(folder))


def test_an_image_on_a_read_only_disk(
    mounted_image: MountFactory, image_factory: ImageBuilder, read_only_folder: Path
) -> None:
    disk = read_only_folder / "disk.raw"
    disk.write_bytes(image_factory(fstype="ext4").read_bytes())
    syscalls.mount("tmpfs", str(read_only_folder), "tmpfs", syscalls.MS_REMOUNT | syscalls.MS_RDONLY, "size=64m")
    with mounted_image(disk) as image:
        assert (image / "lost+found").is_dir()
    text = refused(mounted_image, disk, mode="rw")
    assert text.startswith("ImageUnreadable:")
    assert "overlay" in text


@pytest.mark.parametrize("argument", [{"mode": "write"}, {"backend": "floppy"}, {"format": "floppy"}])
def test_a_mistyped_argument_lists_what_there_is(
    argument: dict[str, str], mounted_image: MountFactory, image_factory: ImageBuilder
) -> None:
    with pytest.raises(errors.RequestInvalid) as caught, mounted_image(image_factory(fstype="ext4"), **argument):
        pass
    assert next(iter(argument)) in str(caught.value)
    assert {"mode": "overlay", "backend": "nbd", "format": "vhdx"}[next(iter(argument))] in str(caught.value)


@NEEDS_QEMU_IMG
def test_loop_for_what_loop_cannot_do(mounted_image: MountFactory, image_factory: ImageBuilder) -> None:
    with (
        pytest.raises(errors.RequestInvalid, match="qcow2"),
        mounted_image(image_factory(fstype="ext4", format="qcow2"), backend="loop"),
    ):
        pass
