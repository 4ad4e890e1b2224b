"""``imagemount inspect`` on real images of every format, as whoever runs the tests."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.cli import main
from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.workspace import Workspace
from pytest_imagemount.factory import ImageFactory, Partition
from pytest_imagemount.inspection import inspect
from pytest_imagemount.programs import run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("libblkid", "mke2fs", "mkfs.vfat", "mtools")

DISK = "11111111-2222-4333-8444-555555555555"
ROOT = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
OTHER_FORMATS = ("qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "parallels")


@pytest.fixture
def image_factory(tmp_path: Path) -> ImageFactory:
    return ImageFactory(tmp_path)


def two_partitions(factory: ImageFactory, format: str) -> Path:
    """A disk with a vfat and an ext4 partition."""
    return factory(
        f"disk.{format}",
        format=format,
        table="gpt",
        uuid=DISK,
        partitions=[
            Partition(fstype="vfat", label="BOOT", size="8M", type="esp", name="boot"),
            Partition(fstype="ext4", label="root", fs_uuid=ROOT, size="16M", name="system"),
        ],
    )


def inspect_json(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["inspect", "--json", str(path)]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def check_two_partitions(found: dict[str, Any]) -> None:
    table = found["table"]
    assert (table["kind"], table["sector_size"], table["uuid"], table["warnings"]) == ("gpt", 512, DISK, [])
    boot, root = table["partitions"]
    assert (boot["number"], boot["size"], boot["label"]) == (1, 8 << 20, "boot")
    assert (boot["filesystem"]["type"], boot["filesystem"]["label"]) == ("vfat", "BOOT")
    assert (root["number"], root["size"], root["label"]) == (2, 16 << 20, "system")
    assert root["filesystem"] == {
        "type": "ext4",
        "usage": "filesystem",
        "label": "root",
        "uuid": ROOT,
        "version": "1.0",
    }
    assert found["filesystem"] is None


def test_a_raw_disk_is_read_directly(image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]) -> None:
    path = two_partitions(image_factory, "raw")
    found = inspect_json(path, capsys)
    status = path.stat()
    assert (found["image"], found["format"]) == (str(path), "raw")
    assert found["virtual_size"] == found["file_size"] == status.st_size
    assert found["allocated"] == status.st_blocks * 512
    check_two_partitions(found)


@pytest.mark.needs("qemu", "qemu-img")
@pytest.mark.parametrize("format", OTHER_FORMATS)
def test_every_other_format_is_read_by_the_storage_daemon(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str], format: str
) -> None:
    raw = two_partitions(image_factory, "raw")
    path = two_partitions(image_factory, format)
    found = inspect_json(path, capsys)
    assert found["format"] == format
    assert found["file_size"] == path.stat().st_size
    assert found["virtual_size"] == raw.stat().st_size
    check_two_partitions(found)


@pytest.mark.needs("qemu", "qemu-img")
def test_the_image_is_not_changed(image_factory: ImageFactory) -> None:
    path = two_partitions(image_factory, "qcow2")
    path.chmod(0o444)
    before = path.read_bytes(), path.stat().st_mtime_ns
    inspect(str(path))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.needs("qemu", "qemu-img")
def test_an_image_that_a_virtual_machine_writes_to_is_busy(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    path = two_partitions(image_factory, "qcow2")
    with path.open("r+b") as file, Workspace() as workspace:
        workspace.daemon.add_image(file.fileno(), "qcow2", image="the writer's", readonly=False)
        assert main(["inspect", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"imagemount: error: image '{path}' is in use: ")
    assert inspect(str(path)).format == "qcow2"


def test_a_file_system_without_a_table_is_the_content_of_the_image(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image_factory("whole.raw", fstype="ext4", label="whole", uuid=ROOT, size="8M")
    found = inspect_json(path, capsys)
    assert found["table"] is None
    assert (found["filesystem"]["type"], found["filesystem"]["uuid"]) == ("ext4", ROOT)
    assert main(["inspect", str(path)]) == 0
    assert f'No partition table\n\nContent\n  image  ext4  version 1.0  label "whole"  uuid {ROOT}\n' in (
        capsys.readouterr().out
    )


def test_the_text_has_the_sizes_the_table_and_the_file_systems(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    path = two_partitions(image_factory, "raw")
    assert main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    size = path.stat().st_size
    assert lines[0] == str(path)
    assert lines[1] == "  format        raw"
    assert lines[2].startswith("  virtual size  ")
    assert lines[2].endswith(f" MiB ({size:,} bytes)")
    assert lines[4] == "  safety        refers to no other file"
    assert lines[6] == f"GPT partition table, 512-byte sectors, id {DISK}"
    assert lines[-3] == "Content"
    assert lines[-2].startswith('  1  vfat  version FAT12  label "BOOT"  uuid ')
    assert lines[-1] == f'  2  ext4  version 1.0  label "root"  uuid {ROOT}'


def test_swap_and_emptiness_are_told(image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]) -> None:
    swap, empty = Partition(fstype="swap", size="4M"), Partition(size="4M")
    path = image_factory("swap.raw", table="mbr", partitions=[swap, empty])
    assert main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2].startswith("  1  swap (other, not mountable)  version 1  ")
    assert lines[-1] == "  2  nothing that is known"


def test_an_extended_partition_holds_partitions_and_no_content(image_factory: ImageFactory) -> None:
    parts = [Partition(size="1M") for _ in range(3)] + [Partition(fstype="ext4", size="8M") for _ in range(2)]
    found = inspect(str(image_factory("logical.raw", table="mbr", partitions=parts)))
    assert found.table is not None
    assert [one.number for one in found.table.partitions if one.container] == [4]
    assert list(found.volumes) == [1, 2, 3, 5, 6]
    assert {number for number, volume in found.volumes.items() if volume.superblock} == {5, 6}


def test_control_characters_of_a_label_do_not_reach_the_terminal(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "label\x1b[2J.raw"
    image_factory("label.raw", fstype="ext4", size="8M").rename(path)
    with path.open("r+b") as file:
        file.seek(1024 + 120)  # s_volume_name
        file.write(b"\x1b[31mred\r\n".ljust(16, b"\0"))
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\r" not in out
    assert 'label "\\x1b[31mred' in out
    assert "label\\x1b[2J.raw\n" in out


@pytest.mark.needs("qemu-img")
def test_an_image_with_a_backing_file_is_refused_and_the_file_named(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    base = two_partitions(image_factory, "raw")
    path = tmp_path / "overlay.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base), str(path)])
    assert main(["inspect", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"imagemount: error: image '{path}': ")
    assert str(base) in captured.err


BAD = {
    "absent": "not found; looked at:",
    "folder": "not an image",
    "empty": "it is empty (0 bytes)",
    "fifo": "not an image",
}


@pytest.mark.parametrize(("kind", "message"), BAD.items())
def test_what_is_no_image_is_one_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, message: str
) -> None:
    path = tmp_path / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.touch()
    elif kind == "fifo":
        os.mkfifo(path)
    assert main(["inspect", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("imagemount: error: image ")
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_a_format_that_the_image_does_not_have_is_refused(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image_factory("plain.raw", fstype="ext4", size="8M")
    assert main(["inspect", "--format", "qcow2", str(path)]) == 2
    assert "qcow2" in capsys.readouterr().err


@pytest.mark.needs("qemu", "qemu-img")
def test_a_qcow2_taken_as_raw_is_looked_at_as_raw(image_factory: ImageFactory) -> None:
    path = two_partitions(image_factory, "qcow2")
    found = inspect(str(path), format="raw")
    assert (found.format, found.virtual_size, found.table) == ("raw", path.stat().st_size, None)


def test_a_partition_beyond_the_end_of_the_disk_is_no_crash(image_factory: ImageFactory) -> None:
    path = image_factory("cut.raw", table="mbr", partitions=[Partition(size="2M"), Partition(size="2M")])
    with path.open("r+b") as file:
        file.seek(446 + 16 + 8)  # second entry: first sector, count
        file.write(struct.pack("<2I", (path.stat().st_size >> 9) + 4096, 4096))
    found = inspect(str(path))
    assert found.table is not None
    second = found.table.find(2)
    assert second is None or second.window != Window(0, 0)
    assert all(volume.superblock is None for volume in found.volumes.values())
