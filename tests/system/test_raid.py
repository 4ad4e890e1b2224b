"""MD arrays made by mdadm: of every level, on partitions of one disk and on several disks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.reader import FileReader
from pytest_imagemount.engine.tables.read import read_table
from pytest_imagemount.engine.volumes import dm, raid
from pytest_imagemount.errors import VolumeInvalid

from .volume_images import MIB, PASSPHRASE, blank, copy_to, loops, luks_format, luks_open, run, sha256

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_imagemount.plugin import AttachFactory, MountFactory

    ImageBuilder = Callable[..., Path]

pytestmark = pytest.mark.needs("root", "loop", "md", "mdadm", "ext4", "mke2fs")

LEVELS = [("linear", 2), ("0", 2), ("1", 2), ("5", 3), ("10", 4)]
ARRAY = Path("/dev/md127")


def make_array(
    places: Sequence[tuple[Path, int, int | None]],
    content: Path,
    *options: str,
    level: str = "1",
    metadata: str = "1.2",
) -> None:
    """An array on those windows, with that content."""
    dm.has_target("raid")  # the lab's kernel has md_mod where no modprobe finds it; this target needs it
    with loops(*places) as devices:
        kind = [f"--level={level}", f"--raid-devices={len(devices)}", f"--metadata={metadata}"]
        clean = ["--assume-clean"] if level not in ("linear", "0") else []
        run("mdadm", "--create", ARRAY, *kind, *clean, "--run", *options, *devices)
        copy_to(ARRAY, content)
        run("mdadm", "--stop", ARRAY)


def array_of(image_factory: ImageBuilder, folder: Path, count: int, **options: str) -> list[Path]:
    """The disks of an array, each of them nothing else."""
    disks = [blank(folder / f"disk{number}.raw", 12 * MIB) for number in range(count)]
    content = image_factory(fstype="ext4", content={"name": "array"}, size="4M", label="array")
    make_array([(disk, 0, None) for disk in disks], content, **options)
    return disks


def hashes(disks: Sequence[Path]) -> list[str]:
    return [sha256(disk) for disk in disks]


@pytest.mark.parametrize(("level", "count"), LEVELS)
def test_an_array_of_several_disks_is_read_and_nothing_changes(
    level: str, count: int, image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disks = array_of(image_factory, tmp_path, count, level=level)
    before = hashes(disks)
    with mounted_image(disks) as image:
        assert (image / "name").read_text() == "array"
        assert image.label == "array"
        assert image.device.startswith(f"/dev/{raid.PREFIX}")
    assert hashes(disks) == before
    with mounted_image(disks[::-1]) as image:
        assert (image / "name").read_text() == "array"


@pytest.mark.parametrize("metadata", ["0.90", "1.0", "1.1"])
def test_superblocks_of_other_versions_are_read(
    metadata: str, image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disks = array_of(image_factory, tmp_path, 2, metadata=metadata)
    before = hashes(disks)
    with mounted_image(disks) as image:
        assert (image / "name").read_text() == "array"
        assert image.device.startswith(f"/dev/{raid.PREFIX}")
    assert hashes(disks) == before


def test_an_array_on_partitions_of_one_disk_is_found(
    image_factory: ImageBuilder, mounted_image: MountFactory, attached_image: AttachFactory
) -> None:
    parts = [{"size": "12M", "type": "raid"}, {"fstype": "ext4", "content": {"name": "plain"}}]
    disk = image_factory(table="gpt", partitions=[*parts, {"size": "12M", "type": "raid"}])
    with disk.open("rb") as file:
        table = read_table(FileReader(file.fileno(), disk.stat().st_size), str(disk))
    assert table is not None
    windows = [table.partitions[index].window for index in (0, 2)]
    content = image_factory(fstype="ext4", content={"name": "array", "etc/os-release": "ID=x\n"}, size="4M")
    make_array([(disk, window.offset, window.size) for window in windows], content)
    before = sha256(disk)
    for partition, name in [(1, "array"), (3, "array"), (2, "plain")]:
        with mounted_image(disk, partition) as image:
            assert (image / "name").read_text() == name
            assert image.partition == partition
    with mounted_image(disk, "auto") as image:
        assert (image / "name").read_text() == "array"
    with attached_image(disk, 1) as device:
        assert device.path.name.startswith("loop")
        assert device.size == 12 * MIB
    assert sha256(disk) == before


@pytest.mark.needs("fuse")
def test_an_array_is_written_to(image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path) -> None:
    disks = array_of(image_factory, tmp_path, 3, level="5")
    with mounted_image(disks, mode="rw") as image:
        (image / "new").write_text("kept")
    before = hashes(disks)
    with mounted_image(disks, mode="overlay") as image:
        assert (image / "new").read_text() == "kept"
        (image / "new").write_text("thrown away")
    assert hashes(disks) == before
    with loops(*[(disk, 0, None) for disk in disks]) as devices:
        run("mdadm", "--assemble", ARRAY, *devices)
        assert "State : clean" in run("mdadm", "--detail", ARRAY)
        assert run("debugfs", "-R", "cat /new", ARRAY) == "kept"
        run("mdadm", "--stop", ARRAY)


def test_a_mirror_that_lacks_a_disk_is_read_but_not_written_to(
    image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disks = array_of(image_factory, tmp_path, 2)
    before = hashes(disks)
    for mode in ("ro", "overlay"):
        with mounted_image(disks[1], mode=mode) as image:
            assert (image / "name").read_text() == "array"
    with pytest.raises(VolumeInvalid, match=r"lacks 1 of its 2 members"), mounted_image(disks[0], mode="rw"):
        pass
    assert hashes(disks) == before


def test_an_array_that_lacks_too_much_is_an_error(
    image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disks = array_of(image_factory, tmp_path, 2, level="0")
    with pytest.raises(VolumeInvalid, match=r"does not run the array.*as a list"), mounted_image(disks[0]):
        pass
    with (
        pytest.raises(VolumeInvalid, match="several images were given"),
        mounted_image([image_factory(fstype="ext4"), disks[0]]),
    ):
        pass


def test_two_copies_of_an_array_are_mounted_at_once(
    image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disks = array_of(image_factory, tmp_path, 2)
    copies = [tmp_path / f"copy{number}.raw" for number in range(2)]
    for disk, copy in zip(disks, copies, strict=True):
        copy.write_bytes(disk.read_bytes())
    with mounted_image(disks) as one, mounted_image(copies) as two:
        assert one.device != two.device
        assert (one / "name").read_text() == (two / "name").read_text() == "array"


@pytest.mark.needs("device-mapper", "cryptsetup")
def test_luks_in_an_array(image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path) -> None:
    disks = [blank(tmp_path / f"disk{number}.raw", 40 * MIB) for number in range(2)]
    secret, content = (
        blank(tmp_path / "secret", 32 * MIB),
        image_factory(fstype="ext4", content={"name": "vault"}, size="4M"),
    )
    luks_format(secret)
    with loops((secret, 0, None)) as [device], luks_open(device) as opened:
        copy_to(opened, content)
    make_array([(disk, 0, None) for disk in disks], secret)
    before = hashes(disks)
    with mounted_image(disks, passphrase=PASSPHRASE) as image:
        assert (image / "name").read_text() == "vault"
        assert image.device.startswith("/dev/dm-")
    assert hashes(disks) == before
