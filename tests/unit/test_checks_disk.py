"""Checks of the disk and its partitions, on a real image; nothing is mounted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_imagemount import Partition, build_image
from tests.unit.checked_image import FolderImage, failures

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("libblkid", "mke2fs")

DISK = "11111111-2222-4333-8444-555555555555"
PART = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
FS = "bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_image(
        tmp_path_factory.mktemp("disk") / "disk.raw",
        table="gpt",
        uuid=DISK,
        partitions=[
            Partition(size="1M", name="boot", type="esp"),
            Partition(fstype="ext4", size="8M", name="root", label="system", fs_uuid=FS, uuid=PART, type="root-x86-64"),
        ],
    )


@pytest.fixture
def image(disk: Path, tmp_path: Path) -> FolderImage:
    return FolderImage(tmp_path, disk)


PASSING = f"""
disk: {{format: raw, table: gpt, partitions: 2, uuid: {DISK.upper()}, min-size: 9 MiB, max-size: 64 MiB,
        max-file-size: 64 MiB}}
partitions:
  1: {{label: boot, type: esp, filesystem: none, fs-label: none, size: 1 MiB}}
  root: {{number: 2, type: 4f68bce3-e8cd-4db1-96e7-fbcaf984b709, uuid: {PART}, filesystem: ext4, fs-label: system,
         fs-uuid: {FS}, min-size: 8 MiB, max-size: 8 MiB}}
  2: exists
  3: absent
  swap: absent
"""


def test_what_is_as_expected_passes(image: FolderImage, tmp_path: Path) -> None:
    assert failures(PASSING, image, tmp_path) == ""


@pytest.mark.parametrize(
    ("yaml", "text"),
    [
        ("disk: {format: qcow2}", "format  expected qcow2\n          found    raw"),
        ("disk: {table: mbr}", "table  expected mbr\n         found    gpt"),
        ("disk: {partitions: 3}", "partitions  expected 3\n              found    2"),
        ("disk: {uuid: x}", f"uuid  expected x\n        found    {DISK}"),
        ("disk: {size: 1 MiB}", "size  expected 1 MiB\n        found    11 MiB"),
        ("disk: {min-size: 1 GiB}", "min-size  expected at least 1 GiB\n            found    11 MiB"),
        ("disk: {max-size: 1 MiB}", "max-size  expected at most 1 MiB\n            found    11 MiB"),
        ("disk: {max-file-size: 1 MiB}", "max-file-size  expected at most 1 MiB\n                 found    11 MiB"),
        ("partitions: {3: exists}", "exists\n         found    no such partition; there are: 1 (boot), 2 (root)"),
        ("partitions: {swap: exists}", "exists\n         found    no such partition; there are: 1 (boot), 2 (root)"),
        ("partitions: {2: absent}", "state  expected absent\n         found    partition 2 (root) of 8 MiB, with ext4"),
        ("partitions: {root: {number: 1}}", "number  expected 1\n          found    2"),
        ("partitions: {2: {label: system}}", "label  expected system\n         found    root"),
        (
            "partitions: {1: {type: linux-generic}}",
            "type  expected linux-generic\n        found    esp (c12a7328-f81f-",
        ),
        ("partitions: {2: {uuid: x}}", f"uuid  expected x\n        found    {PART}"),
        ("partitions: {2: {filesystem: xfs}}", "filesystem  expected xfs\n              found    ext4"),
        ("partitions: {1: {filesystem: vfat}}", "filesystem  expected vfat\n              found    none"),
        ("partitions: {2: {fs-label: root}}", "fs-label  expected root\n            found    system"),
        ("partitions: {2: {fs-uuid: x}}", f"fs-uuid  expected x\n           found    {FS}"),
        ("partitions: {2: {size: 9 MiB}}", "size  expected 9 MiB\n        found    8 MiB"),
        ("partitions: {2: {min-size: 9 MiB}}", "min-size  expected at least 9 MiB\n            found    8 MiB"),
        ("partitions: {2: {max-size: 1 MiB}}", "max-size  expected at most 1 MiB\n            found    8 MiB"),
    ],
)
def test_what_is_not_as_expected_is_told(yaml: str, text: str, image: FolderImage, tmp_path: Path) -> None:
    told = failures(yaml, image, tmp_path)
    assert text in told
    assert told.splitlines()[0].endswith(" in disk.raw"), "no partition is mounted for it"


def test_an_image_without_a_table_has_no_partitions(tmp_path: Path) -> None:
    disk = build_image(tmp_path / "plain.raw", fstype="ext4", size="2M")
    image = FolderImage(tmp_path, disk)
    assert failures("disk: {table: none, partitions: 0, uuid: none}", image, tmp_path) == ""
    assert "found    no partitions" in failures("partitions: {1: exists}", image, tmp_path)
