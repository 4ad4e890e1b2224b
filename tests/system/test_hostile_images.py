"""Images that were made to break who opens them: each gives an error or the right content, and harms no other mount."""

from __future__ import annotations

import os
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.errors import FilesystemNotMountable, ImageMountError
from pytest_imagemount.programs import run
from tests.fuzz import storage_daemon
from tests.unit.contents import MIB, Qcow2, dmg

if TYPE_CHECKING:
    from pytest_imagemount.factory import ImageFactory
    from pytest_imagemount.plugin import AttachFactory, MountFactory

pytestmark = pytest.mark.needs("privileged", "loop", "qemu", "qemu-img", "fuse", "mke2fs", "ext4")

FOUND = Path(__file__).parent.parent / "fuzz/cases/storage_daemon"
LONGEST = 10.0
"""Seconds for each; the slowest, a table of two exbibytes, takes two."""


CONTENTS = {
    "virtual size of 2^63": Qcow2(size=1 << 63, l1_entries=1 << 22).build(),
    "virtual size of 2^64": Qcow2(size=(1 << 64) - 1).build(),
    "l1 table over the header": Qcow2(l1_offset=0).build(),
    "l1 table that is its own l2 table": Qcow2(l1=[0x30000 | 1 << 63]).build(),
    "l2 table over the header": Qcow2(l1=[0]).build() + bytes(9),
    "data over the tables": Qcow2(l2=[0x30000 | 1 << 63, 0x10000 | 1 << 63, 0x20000 | 1 << 63]).build(),
    "refcount table of 8 MiB": Qcow2(refcount_clusters=128).build(),
    "refcount table over itself": Qcow2(refcount_offset=0x20000).build(),
    "refcounts of 64 bits in a table of none": Qcow2(refcount_order=6, counted=0).build(),
    "65536 snapshots": Qcow2(snapshots=65536, snapshots_offset=0x10000).build() + bytes(4 * MIB),
    "snapshots of absurd lengths": Qcow2(snapshots=2, snapshots_offset=0x50000).build()[:0x50000]
    + struct.pack(">QIHHIIQII", 0x30000, 1 << 31, 65535, 65535, 0, 0, 0, 1 << 31, 1 << 31) * 4
    + bytes(MIB),
    "extension of 4 GiB": Qcow2(extensions=[]).build()[:104] + struct.pack(">II", 1, 0xFFFFFFFF) + bytes(0x60000),
    "compressed data at the end of all": Qcow2(l2=[1 << 62 | (1 << 54) - 1]).build(),
    "dmg without chunks": dmg(chunks=[]),
    "dmg with too few chunks": dmg(chunks=[(0, 0, 1, 0, 0)]),
}
LARGE = {
    "qcow2 of 2 EiB": ("qcow2", "-o", "cluster_size=2M", "2000P"),
    "qcow2 of 1.5 PiB": ("qcow2", "-o", "cluster_size=2M", "1500T"),
    "qed of 60 TiB": ("qed", "60T"),
    "vhdx of 60 TiB": ("vhdx", "60T"),
}


@pytest.fixture
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "hostile"
    if request.param in CONTENTS:
        path.write_bytes(CONTENTS[request.param])
    else:
        format, *options, size = LARGE[request.param]
        run(["qemu-img", "create", "-q", "-f", format, *options, str(path), size])
    return path


@pytest.mark.parametrize("image", [*CONTENTS, *LARGE], indirect=True)
@pytest.mark.parametrize("mode", ["ro", "overlay"])
def test_it_is_an_error_or_a_device_and_other_mounts_stay(
    image: Path, mode: str, attached_image: AttachFactory, mounted_image: MountFactory, image_factory: ImageFactory
) -> None:
    bystander = image_factory(fstype="ext4", content={"etc/hostname": "web01\n"}, format="qcow2")
    with mounted_image(bystander) as other:
        start, told = time.monotonic(), ""
        try:
            with attached_image(image, mode=mode, backend="fuse") as device:
                assert device.size % 512 == 0
                _read(device.path)
        except ImageMountError as error:
            told = str(error)
        assert time.monotonic() - start < LONGEST
        assert not told or "hostile" in told
        os.sync()
        assert (other / "etc/hostname").read_text() == "web01\n"
        assert [path.name for path in (other / "etc").iterdir()] == ["hostname"]


def test_what_the_fuzzer_starts_from_and_what_it_found_does_not_end_the_daemon() -> None:
    try:
        for data in [*storage_daemon.seeds().values(), *(path.read_bytes() for path in FOUND.iterdir())]:
            storage_daemon.fuzz_one(data)
    finally:
        storage_daemon.stop()


def _read(path: Path) -> None:
    """Both ends of the device, if this user may."""
    if os.geteuid():
        return
    with path.open("rb", buffering=0) as device:
        for place in (0, max(device.seek(0, os.SEEK_END) - MIB // 2, 0)):
            device.seek(place)
            with suppress(OSError):  # EIO is an answer
                device.read(MIB)


@pytest.mark.parametrize("mode", ["ro", "overlay"])
def test_no_device_of_the_machine_is_opened_as_an_external_journal(
    mounted_image: MountFactory, attached_image: AttachFactory, tmp_path: Path, mode: str
) -> None:
    journal, disk = tmp_path / "journal", tmp_path / "disk"
    for path in (journal, disk):
        path.touch()
        os.truncate(path, 16 * MIB)
    with attached_image(journal, mode="rw", format="raw") as device:
        run(["mke2fs", "-q", "-F", "-b", "1024", "-O", "journal_dev", str(device.path)])
        run(["mke2fs", "-q", "-F", "-b", "1024", "-J", f"device={device.path}", str(disk)])
        before = journal.read_bytes()
        with (
            pytest.raises(FilesystemNotMountable, match=r"external journal, block device 7:\d+.*options='noload'"),
            mounted_image(disk, mode=mode),
        ):
            pytest.fail("mounted")
        with mounted_image(disk, mode=mode, options="noload") as image:
            assert (image / "lost+found").is_dir()
        assert journal.read_bytes() == before
