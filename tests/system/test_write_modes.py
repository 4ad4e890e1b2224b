"""What each mode does with a dirty journal, and the bound on what mode overlay may write."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.errors import RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_imagemount.plugin import MountFactory

    ImageBuilder = Callable[..., Path]

pytestmark = pytest.mark.needs("privileged", "loop")

MIB = 1 << 20
FILESYSTEMS = [
    pytest.param(fstype, size, marks=pytest.mark.needs(fstype, tool))
    for fstype, size, tool in (("ext4", "16M", "mke2fs"), ("xfs", "300M", "mkfs.xfs"), ("btrfs", "128M", "mkfs.btrfs"))
]
OVERLAYS = [
    pytest.param("fuse", marks=pytest.mark.needs("fuse")),
    pytest.param("nbd", marks=pytest.mark.needs("nbd", "qemu")),
]


def sha256(path: Path) -> str:
    """Of where there are data in the file, and of these: a hole that is filled counts too."""
    digest, place = hashlib.sha256(), 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while place < size:
            try:
                start = os.lseek(file.fileno(), place, os.SEEK_DATA)
            except OSError:  # ENXIO: the rest is a hole
                break
            place = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            digest.update(b"%d-%d:" % (start, place) + os.pread(file.fileno(), place - start, start))
    return digest.hexdigest()


def write_all(path: Path, size: int) -> None:
    """Write ``size`` bytes that cannot be made smaller, a MiB at a time, each to the disk."""
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
            file.flush()
            os.fsync(file.fileno())


def crash(disk: Path, crashed: Path, mounted_image: MountFactory) -> None:
    """Make ``crashed`` what a power cut leaves of ``disk`` when a file has just been written."""
    with mounted_image(disk, mode="rw") as image:
        # Two syncs: the journal's end, and then something in it that is not in place.
        (image / "old").write_text("o")
        os.sync()
        with (image.root / "new").open("w") as file:
            file.write("x")
            file.flush()
            os.fsync(file.fileno())
        subprocess.run(["cp", "--sparse=always", disk, crashed], check=True)


@pytest.mark.parametrize(("fstype", "size"), FILESYSTEMS)
@pytest.mark.needs("root", "fuse")
def test_a_dirty_journal_is_told_and_replayed_only_in_an_overlay(
    fstype: str, size: str, image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disk = image_factory(fstype=fstype, size=size, content={"etc/hostname": "web01\n"})
    crashed = tmp_path / "crashed.raw"
    with mounted_image(disk) as image:
        assert not image.dirty
    crash(disk, crashed, mounted_image)
    before = sha256(crashed)
    with mounted_image(crashed) as image:
        assert image.dirty
        assert (image / "etc/hostname").read_text() == "web01\n"
    assert sha256(crashed) == before
    with mounted_image(crashed, mode="overlay") as image:
        assert not image.dirty
        assert (image / "new").read_text() == "x"
    assert sha256(crashed) == before


@pytest.mark.parametrize("backend", OVERLAYS)
@pytest.mark.needs("ext4", "mke2fs")
def test_an_overlay_takes_no_more_than_it_may(
    backend: str, image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    disk = image_factory(fstype="ext4", size="64M", content={"old": "x"})
    before = sha256(disk)
    with mounted_image(disk, mode="overlay", overlay_size=8 * MIB, backend=backend) as image:
        (image / "small").write_bytes(os.urandom(MIB))
        os.sync()
        with pytest.raises(OSError, match=r"space|error") as refused:
            write_all(image.root / "large", 24 * MIB)
        assert refused.value.errno in (errno.ENOSPC, errno.EIO)
        assert (image / "old").read_text() == "x"
    assert sha256(disk) == before
    with mounted_image(disk, mode="overlay", overlay_size=40 * MIB, backend=backend) as image:
        write_all(image.root / "large", 24 * MIB)
        assert (image / "large").stat().st_size == 24 * MIB
    assert sha256(disk) == before


def test_an_overlay_that_could_hold_nothing_is_refused(mounted_image: MountFactory, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(MIB))
    with (
        pytest.raises(RequestInvalid, match="overlay_size=4096: must be at least"),
        mounted_image(disk, mode="overlay", overlay_size=4096),
    ):
        pass
