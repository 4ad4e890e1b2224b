"""``imagemount inspect`` on real images of every format, as whoever runs the tests."""

from __future__ import annotations

import gzip
import json
import os
import re
import struct
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pytest_imagemount.cli import main
from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.tables.discoverable import root_type_name
from pytest_imagemount.engine.workspace import Workspace
from pytest_imagemount.factory import ImageFactory, Partition
from pytest_imagemount.inspection import inspect
from pytest_imagemount.inspection_os import System
from pytest_imagemount.programs import run
from tests.unit.lvm_disks import PV1, group_text, linear, physical_volume, volume

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
        "mountable": True,
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
    out = capsys.readouterr().out
    assert f"\nNo partition table\n  content  ext4\n  label    whole\n  uuid     {ROOT}\n" in out
    assert out.endswith('\npartition="auto" mounts the image itself\n')


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
    assert re.fullmatch(r"  ░+█+▓+░+", lines[7]), lines[7]
    assert len(lines[7]) == 78
    assert lines[8].split() == ["1", "2"]
    assert lines[9].split() == ["#", "start", "size", "type", "name", "content", "label"]
    assert lines[10].split() == ["1", "1", "MiB", "8", "MiB", "esp", "boot", "vfat", "FAT12", "BOOT"]
    assert lines[11].split() == ["2", "9", "MiB", "16", "MiB", "linux-generic", "system", "ext4", "root"]
    assert lines[13:15] == ["Identities", f"  #  partition uuid{' ' * 24}uuid of its content"]
    assert lines[16].endswith(f"  {ROOT}")
    assert lines[18].startswith('partition="auto" is not clear from this: 2 partitions hold a file system')
    assert max(map(len, lines[1:])) <= 80


def lvm_disk(factory: ImageFactory, text: str) -> Path:
    """A GPT of the two physical volumes of the group that ``text`` describes; only the first has the text."""
    disk = factory("lvm.img", table="gpt", partitions=[Partition(size="60M"), Partition(size="60M")])
    first, second = (one.window.offset for one in inspect(str(disk)).table.partitions)  # type: ignore[union-attr]
    with disk.open("r+b") as file:
        for place, volume in ((first, physical_volume(text)), (second, physical_volume("", PV1))):
            file.seek(place)
            file.write(volume.content)
    return disk


def test_the_logical_volumes_are_listed_with_what_is_in_them(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    content = image_factory("content.img", fstype="ext4", label="root", uuid=ROOT, size="20M").read_bytes()
    volumes = (
        volume("root", linear("pv1", 30), linear("pv1", 5)),
        volume("empty", linear("pv0", 0)),
        volume("fast", 'type = "striped"\nstripe_count = 2\nstripes = ["pv0", 20, "pv1", 20]'),
        volume("part_of_another", linear("pv0", 30), status='"READ"'),
    )
    disk = lvm_disk(image_factory, group_text(*volumes))
    second = inspect(str(disk)).table.partitions[1].window.offset  # type: ignore[union-attr]
    with disk.open("r+b") as file:
        for extent, piece in ((30, content[: 10 << 20]), (5, content[10 << 20 :])):
            file.seek(second + ((1 + extent) << 20))  # the extents start behind the first MiB
            file.write(piece)
    found = inspect_json(disk, capsys)
    root, empty, fast = found["volumes"]
    assert (root["name"], root["size"], root["kind"]) == ("lv:vg/root", 20 << 20, "linear")
    assert (root["filesystem"]["type"], root["filesystem"]["uuid"]) == ("ext4", ROOT)
    assert empty == {"name": "lv:vg/empty", "size": 10 << 20, "kind": "linear", "filesystem": None}
    assert fast == {"name": "lv:vg/fast", "size": 10 << 20, "kind": "striped", "filesystem": None}
    assert found["volumes_error"] is None
    assert found["auto"] == {"partition": None, "error": found["auto"]["error"]}
    assert found["auto"]["error"].startswith("2 logical volumes hold a file system, and none of them has")
    assert main(["inspect", str(disk)]) == 0
    assert re.search(
        r"Logical volumes\n +size +name .*\n +20 MiB +lv:vg/root +linear +ext4 +root\n", capsys.readouterr().out
    )


def test_auto_may_be_a_logical_volume(image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]) -> None:
    content = image_factory("content.img", fstype="ext4", size="10M").read_bytes()
    disk = lvm_disk(image_factory, group_text(volume("empty", linear("pv0", 9)), volume("root", linear("pv0", 0))))
    with disk.open("r+b") as file:
        file.seek(inspect(str(disk)).table.partitions[0].window.offset + (1 << 20))  # type: ignore[union-attr]
        file.write(content)
    assert inspect_json(disk, capsys)["auto"] == {"partition": "lv:vg/root", "error": None}
    assert main(["inspect", str(disk)]) == 0
    assert capsys.readouterr().out.endswith('\npartition="auto" mounts volume vg/root\n')


def test_logical_volumes_that_cannot_be_told_are_an_error_in_their_place(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    found = inspect_json(lvm_disk(image_factory, "vg { }"), capsys)
    assert found["volumes"] == []
    assert "physical volume in partition 1: extent_size is missing" in found["volumes_error"]
    assert [one["filesystem"]["type"] for one in found["table"]["partitions"]] == ["LVM2_member"] * 2


def test_a_logical_volume_of_absurd_size_is_an_error_in_its_place(image_factory: ImageFactory) -> None:
    huge = "start_extent = 0\nextent_count = 1099511627775\n" + linear("pv0", 0)
    text = group_text(volume("root", huge)).replace("extent_size = 2048", "extent_size = 2147483648")
    (found,) = inspect(str(lvm_disk(image_factory, text))).logical.found
    assert found.content is not None
    assert found.content.error == f"no device has {((1 << 40) - 1) << 40} bytes"


def test_a_logical_volume_on_a_disk_that_is_not_there_is_an_error_in_its_place(image_factory: ImageFactory) -> None:
    disk = lvm_disk(image_factory, group_text(volume("root", linear("pv1", 0)), volume("home", linear("pv0", 0))))
    place = inspect(str(disk)).table.partitions[1].window.offset  # type: ignore[union-attr]
    with disk.open("r+b") as file:
        file.seek(place)
        file.write(bytes(4096))
    root, home = inspect(str(disk)).logical.found
    assert root.content is not None
    assert root.content.error == "a part of it is on pv1, which is not in the image"
    assert home.content is not None
    assert home.content.error is None


def test_swap_and_emptiness_are_told(image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]) -> None:
    swap, empty = Partition(fstype="swap", size="4M"), Partition(size="4M")
    path = image_factory("swap.raw", table="mbr", partitions=[swap, empty])
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^  1  1 MiB  4 MiB  swap \(0x82\)   swap$", out, re.MULTILINE)
    assert re.search(r"^  2  5 MiB  4 MiB  linux \(0x83\)  nothing known$", out, re.MULTILINE)


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
    assert "  label    \\x1b[31mred\n" in out
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


@pytest.mark.needs("qemu", "qemu-img")
def test_an_image_with_backing_files_in_a_given_folder_is_looked_into(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    base = two_partitions(image_factory, "raw")
    middle, top = tmp_path / "middle.qcow2", tmp_path / "top.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base.name, str(middle)])
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", middle.name, str(top)])
    arguments = ["inspect", str(top), "--backing", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    check_two_partitions(found)
    (first,) = found["refers_to"]
    (second,) = first.pop("refers_to")
    assert first == {"role": "backing file", "name": middle.name, "path": str(middle), "format": "qcow2"}
    assert second == {"role": "backing file", "name": base.name, "path": str(base), "format": "raw", "refers_to": []}
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("refers to")[1].strip() for line in lines if "refers to" in line] == [
        f"backing file {middle} (qcow2)",
        f"backing file {base} (raw)",
    ]


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


def test_the_json_has_these_keys_and_no_others(image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]) -> None:
    """docs/inspect.md describes them; one that goes or changes raises ``schema``."""
    found = inspect_json(two_partitions(image_factory, "raw"), capsys)
    names = ["schema", "image", "format", "virtual_size", "file_size", "allocated", "filesystem", "table", "auto", "os"]
    assert sorted(found) == sorted([*names, "volumes", "volumes_error", "refers_to"])
    assert found["schema"] == 1
    assert sorted(found["table"]) == ["kind", "partitions", "sector_size", "uuid", "warnings"]
    assert sorted(found["table"]["partitions"][0]) == sorted(
        ["number", "offset", "size", "type", "type_name", "uuid", "label", "logical", "container", "attributes"]
        + ["filesystem"]
    )
    assert sorted(found["table"]["partitions"][0]["filesystem"]) == sorted(
        ["type", "usage", "mountable", "label", "uuid", "version"]
    )
    assert sorted(found["auto"]) == ["error", "partition"]
    assert found["os"] is None
    document = (Path(__file__).parents[2] / "docs/inspect.md").read_text(encoding="utf-8")
    described = set(re.findall(r"`(?:table\.|auto\.)?(\w+)`", document))
    table = found["table"]
    assert described >= {*found, *table, *table["partitions"][0], *table["partitions"][0]["filesystem"], *found["auto"]}
    assert described >= {field.name for field in fields(System)}


def test_a_compressed_image_is_looked_into(
    image_factory: ImageFactory,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("IMAGEMOUNT_CACHE", str(tmp_path / "cache"))
    raw = two_partitions(image_factory, "raw")
    path = tmp_path / "disk.img.gz"
    path.write_bytes(gzip.compress(raw.read_bytes(), 1))
    found = inspect_json(path, capsys)
    assert (found["image"], found["format"]) == (str(path), "raw")
    assert (found["virtual_size"], found["file_size"]) == (raw.stat().st_size, path.stat().st_size)
    check_two_partitions(found)


def test_the_choice_of_auto_is_told(image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]) -> None:
    path = image_factory(
        "roots.raw",
        table="gpt",
        partitions=[
            Partition(fstype="ext4", type="root-x86-64", size="8M"),
            Partition(fstype="ext4", type="root-arm64", size="8M"),
        ],
    )
    for architecture, number in (("amd64", 1), ("arm64", 2)):
        assert main(["inspect", "--json", "--architecture", architecture, str(path)]) == 0
        assert json.loads(capsys.readouterr().out)["auto"] == {"partition": number, "error": None}
    assert main(["inspect", "--json", "--architecture", "riscv64", str(path)]) == 0
    auto = json.loads(capsys.readouterr().out)["auto"]
    assert auto["partition"] is None
    assert "2 partitions hold a file system, and 0 of them are of type root-riscv64" in auto["error"]


@pytest.mark.parametrize(("fstype", "error"), [("swap", "the image itself holds no file system (swap)"), (None, None)])
def test_an_image_without_a_file_system_is_not_what_auto_mounts(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str], fstype: str | None, error: str | None
) -> None:
    found = inspect_json(image_factory("whole.raw", fstype=fstype, size="8M"), capsys)
    assert found["auto"] == {"partition": None, "error": error or "the image itself holds no file system"}


OS_RELEASE = 'ID=toy\nVERSION_ID="1.5"\nNAME=Toy\nPRETTY_NAME="Toy\\033 1.5 \u202e(x)"\n'


@pytest.mark.needs("privileged", "loop", "ext4")
def test_the_installed_system_is_read_from_its_root(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image_factory(
        "system.raw",
        table="gpt",
        partitions=[
            Partition(fstype="vfat", type="esp", size="8M"),
            Partition(fstype="ext4", type=root_type_name(), size="8M", content={"etc/os-release": OS_RELEASE}),
        ],
    )
    before = path.read_bytes()
    assert main(["inspect", "--json", "--os", str(path)]) == 0
    system = json.loads(capsys.readouterr().out)["os"]
    assert (system["partition"], system["id"], system["version_id"], system["name"]) == (2, "toy", "1.5", "Toy")
    assert system["error"] is None
    assert main(["inspect", "--os", "--partition", "2", str(path)]) == 0
    out = capsys.readouterr().out
    assert "\nOperating system\n  Toy" in out
    assert "\\u202e(x)\n  id toy, version 1.5\n  in partition 2\n" in out
    assert "\u202e" not in out
    assert path.read_bytes() == before


@pytest.mark.needs("privileged", "loop", "ext4")
def test_an_installed_system_that_is_not_there_is_an_error_in_its_place(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image_factory("empty.raw", fstype="ext4", size="8M")
    assert main(["inspect", "--json", "--os", str(path)]) == 1
    system = json.loads(capsys.readouterr().out)["os"]
    assert "has no os-release" in system["error"]
    assert system["id"] is None


@pytest.mark.parametrize("name", ["logical.raw", "many.raw"])
def test_the_picture_fits_in_80_columns(
    image_factory: ImageFactory, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    count = 3 if name == "logical.raw" else 40
    partitions = [
        Partition(fstype="ext4", size="2M", label="l" * 16, name="n" * 36, type="root-loongarch64-verity-sig")
        for _ in range(count)
    ]
    path = image_factory(name, table="gpt", partitions=partitions)
    assert main(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[1:])) <= 80
    assert sum(line.count("ext4") for line in lines) == count
