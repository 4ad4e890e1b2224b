"""Every way to say which partition, on disks of every kind of table, mounted for real."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.tables.discoverable import root_type_name
from pytest_imagemount.errors import PartitionAmbiguous, PartitionNotFound, PartitionRequired
from pytest_imagemount.inspection import inspect, to_json
from tests.unit.disks import apple_disk, bsd_label, iso_image, mbr_disk, mbr_entry, mbr_sector, sun_sector

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_imagemount.plugin import AttachFactory, MountFactory

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("privileged", "loop", "ext4", "mke2fs", "libblkid")

UUIDS = [f"0000000{number}-1111-4222-8333-444444444444" for number in range(1, 5)]
PARTUUIDS = [f"0000000{number}-5555-4666-8777-888888888888" for number in range(1, 5)]
MIB = 1 << 20


@pytest.fixture
def system_disk(image_factory: ImageBuilder) -> Path:
    """Four ext4 partitions, in each a file ``number``; the second is the root of this machine."""
    types = ["xbootldr", root_type_name(), "home", "linux-generic"]
    return image_factory(
        table="gpt",
        partitions=[
            {
                "fstype": "ext4",
                "size": "4M",
                "type": kind,
                "name": f"part {number}",
                "uuid": PARTUUIDS[number - 1],
                "label": f"label-{number}",
                "fs_uuid": UUIDS[number - 1],
                "content": {"number": str(number)},
            }
            for number, kind in enumerate(types, start=1)
        ],
    )


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        (3, 3),
        ("4", 4),
        ("LABEL=label-3", 3),
        (f"UUID={UUIDS[3].upper()}", 4),
        ("PARTLABEL=part 1", 1),
        (f"PARTUUID={PARTUUIDS[2].upper()}", 3),
        ("TYPE=home", 3),
        ("TYPE=xbootldr", 1),
        ("TYPE=root", 2),
        (f"TYPE={root_type_name()}", 2),
        ("TYPE=0FC63DAF-8483-4772-8E79-3D69D8477DE4", 4),
        ("auto", 2),
        (-1, 2),
    ],
)
def test_the_partition_that_is_named_is_mounted(
    system_disk: Path, mounted_image: MountFactory, wanted: int | str, number: int
) -> None:
    with mounted_image(system_disk, wanted) as image:
        assert image.partition == number
        assert (image / "number").read_text() == str(number)
        assert (image.label, image.uuid) == (f"label-{number}", UUIDS[number - 1])


def test_none_asks_for_one_and_shows_the_table(system_disk: Path, mounted_image: MountFactory) -> None:
    with pytest.raises(PartitionRequired, match="one of 1, 2, 3, 4") as caught, mounted_image(system_disk):
        pass
    assert "part 3" in str(caught.value)


def test_what_two_partitions_match_lists_the_two(image_factory: ImageBuilder, mounted_image: MountFactory) -> None:
    partitions = [{"fstype": "ext4", "size": "4M", "name": f"n{number}", "label": "same"} for number in (1, 2)]
    disk = image_factory(table="gpt", partitions=partitions)
    for wanted in ("LABEL=same", "TYPE=linux-generic"):
        with pytest.raises(PartitionAmbiguous, match="2 partitions match") as caught, mounted_image(disk, wanted):
            pass
        assert "n1" in caught.value.table
        assert "n2" in caught.value.table


def test_a_label_with_control_characters_is_escaped_on_its_way_to_the_test(
    image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    name = "\x1b[31m\u202eevil\r\n"
    disk = image_factory(table="gpt", partitions=[{"fstype": "ext4", "size": "4M", "name": name}, {"size": "1M"}])
    with pytest.raises(PartitionNotFound) as caught, mounted_image(disk, 9):
        pass
    assert all(char.isprintable() or char == "\n" for char in str(caught.value))
    assert "\\x1b[31m\\u202eevil\\r\\n" in str(caught.value)
    with mounted_image(disk, f"PARTLABEL={name}") as image:
        assert image.partition == 1


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("table", ["mbr", "gpt"])
def test_logical_and_other_partitions_in_every_sector_size(
    image_factory: ImageBuilder, mounted_image: MountFactory, table: str, sector_size: int
) -> None:
    partitions = [{"fstype": "ext4", "size": "4M", "content": {"which": str(number)}} for number in range(6)]
    disk = image_factory(table=table, sector_size=sector_size, partitions=partitions)
    numbers = [1, 2, 3, 5, 6, 7] if table == "mbr" else [1, 2, 3, 4, 5, 6]
    for which in (0, 3, 5):
        with mounted_image(disk, numbers[which]) as image:
            assert (image / "which").read_text() == str(which)


def foreign_disk(kind: str, filesystem: bytes) -> tuple[bytearray, int]:
    """A disk with a table of that kind, and the number of its partition with ``filesystem``, at 2 MiB."""
    size, sectors = 16 * MIB, len(filesystem) // 512
    if kind == "apple":
        entries = [(1, 63, b"Apple", b"Apple_partition_map"), (4096, sectors, b"Linux", b"Apple_UNIX_SVR2")]
        disk, number = apple_disk(entries, size=size), 2
    elif kind == "bsd":
        disk, number = mbr_disk({1: bsd_label([(64, 64, 1), (4096, sectors, 17)])}, size=size), 2
    elif kind == "bsd in mbr":
        table = mbr_sector([mbr_entry(0xA5, 2048, 30000), mbr_entry(0x83, 32100, 10)])
        label = bsd_label([(2048, 100, 1), (4096, sectors, 17), (2048, 30000, 0)])
        disk, number = mbr_disk({0: table, 2049: label}, size=size), 6
    else:
        disk, number = mbr_disk({0: sun_sector([(0, 80, 0x82), (512, sectors, 0x83)])}, size=size), 2
    disk[2 * MIB : 2 * MIB + len(filesystem)] = filesystem
    return disk, number


@pytest.mark.parametrize("kind", ["apple", "bsd", "bsd in mbr", "sun"])
def test_a_partition_of_a_table_that_this_kernel_may_not_read(
    kind: str, image_factory: ImageBuilder, mounted_image: MountFactory, attached_image: AttachFactory, tmp_path: Path
) -> None:
    filesystem = image_factory(fstype="ext4", size="4M", label="inside", content={"hello": kind}).read_bytes()
    disk, number = foreign_disk(kind, filesystem)
    path = tmp_path / "disk.img"
    path.write_bytes(disk)
    for wanted in (number, "auto", "LABEL=inside"):
        with mounted_image(path, wanted) as image:
            assert image.partition == number
            assert (image / "hello").read_text() == kind
    with attached_image(path, number) as device:
        assert device.path.read_bytes() == filesystem
    found = to_json(inspect(str(path)))
    assert found["table"]["kind"] == kind.rpartition(" ")[2]
    assert found["auto"] == {"partition": number, "error": None}
    assert json.dumps(found)


def hybrid_iso(image_factory: ImageBuilder, tmp_path: Path) -> Path:
    """An ISO with an MBR in front: partition 1 is all of the ISO, partition 2, behind it, an ext4."""
    iso = iso_image("HELLO.TXT;1", b"on the iso\n").ljust(MIB, b"\0")
    appended = image_factory(fstype="ext4", size="4M", content={"hello": "appended"}).read_bytes()
    table = mbr_sector([mbr_entry(0x17, 0, 2048, boot=0x80), mbr_entry(0x83, 2048, len(appended) // 512)])
    path = tmp_path / "hybrid.iso"
    path.write_bytes(table + iso[512:] + appended)
    return path


def test_an_iso_with_a_partition_table_is_shown_as_both(image_factory: ImageBuilder, tmp_path: Path) -> None:
    found = to_json(inspect(str(hybrid_iso(image_factory, tmp_path))))
    assert (found["filesystem"]["type"], found["filesystem"]["label"]) == ("iso9660", "LIVE")
    assert found["table"]["kind"] == "mbr"
    assert found["auto"] == {"partition": None, "error": None}


@pytest.mark.needs("iso9660")
def test_none_and_auto_mount_the_iso_and_a_number_its_partition(
    image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    path = hybrid_iso(image_factory, tmp_path)
    for wanted in (None, "auto", 1):
        with mounted_image(path, wanted) as image:
            assert (image.fstype, image.partition) == ("iso9660", 1 if wanted == 1 else None)
            assert (image / "hello.txt").read_text() == "on the iso\n"
    with mounted_image(path, 2) as image:
        assert (image / "hello").read_text() == "appended"
