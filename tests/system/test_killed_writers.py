"""Mode rw: others are kept out, at teardown all is in the image, and it is consistent whoever is killed meanwhile.

What is left behind then, which is nothing, is the matter of ``./tests/faults``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.nbd.netlink import NbdNetlink
from pytest_imagemount.engine.undo import wait_until
from pytest_imagemount.errors import ImageBusy
from pytest_imagemount.programs import environment, run
from tests.unit.image_readers import ext_data, ext_is_sound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_imagemount.plugin import MountFactory

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs", "debugfs", "qemu", "qemu-img")

# In the lab, which is slow at this, only what needs it.
FUSE = [] if "IMAGEMOUNT_IN_LAB" in os.environ else [pytest.param("fuse", marks=pytest.mark.needs("fuse"))]
BACKENDS = [*FUSE, pytest.param("nbd", marks=pytest.mark.needs("nbd-netlink"))]
FORMATS = [pytest.param("raw", marks=pytest.mark.needs("loop")), pytest.param("qcow2", marks=pytest.mark.needs("fuse"))]
PIECE = 100_000
KEPT = 5
BEFORE_THE_KILL = 9
_LEAKS_ONLY = 3  # exit status of qemu-img check: clusters that nothing refers to, and no other fault
WRITER = f"""
import os, sys
from tests.fault_matrix.lane import enter_lane

enter_lane()  # what is left when all is dead goes with its namespace
from pytest_imagemount import mount_image
from pytest_imagemount.pending import LIVE

image = mount_image(sys.argv[1], 1, mode="rw", backend=sys.argv[2]).__enter__()
print(LIVE.helper, image.device, flush=True)
number = 0
while True:
    number += 1
    with (image.root / f"file-{{number}}").open("wb") as file:
        file.write(bytes([number % 256]) * {PIECE})
        file.flush()
        os.fsync(file.fileno())
    print(number, flush=True)
    if number > {KEPT}:
        (image.root / f"file-{{number - {KEPT}}}").unlink()
"""


@dataclass
class Writer:
    """A process that has partition 1 of an image mounted and writes files; it tells of each once it is synced.

    :param helper: the pid of its helper
    :param device: as ``/dev/nbd3``
    """

    process: subprocess.Popen[str]
    helper: int
    device: str

    def next_synced(self) -> int:
        """The number of the next file."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def daemon(self) -> int:
        """The pid of its storage daemon."""
        children = Path(f"/proc/{self.helper}/task/{self.helper}/children").read_text().split()
        (found,) = (pid for pid in children if b"qemu-storage-daemon" in Path(f"/proc/{pid}/cmdline").read_bytes())
        return int(found)

    def last_synced(self) -> int:
        """The number of the last file that it told of before it ended."""
        assert self.process.stdout is not None
        told = [int(line) for line in self.process.stdout.read().split()]
        self.process.wait()
        return max(told, default=0)


@pytest.fixture
def image(image_factory: ImageBuilder) -> Path:
    """A qcow2 with an ext4 in its first partition."""
    return image_factory(format="qcow2", table="gpt", partitions=[{"fstype": "ext4", "size": "16M"}])


@pytest.fixture
def writer(image: Path, backend: str) -> Iterator[Writer]:
    argv = [sys.executable, "-c", WRITER, str(image), backend]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    helper, device = process.stdout.readline().split()
    yield Writer(process, int(helper), device)
    process.kill()
    process.communicate()


def ended(pid: int) -> bool:
    """Whether it is no process any more, or a zombie."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def disconnect(device: str) -> None:
    """As the next run or ``imagemount clean`` does: a request that was under way waits for a minute else."""
    index = int(device.removeprefix("/dev/nbd"))
    driver = NbdNetlink.open()
    assert driver is not None
    with driver, suppress(OSError):  # it has no connection any more
        driver.disconnect(index)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("victim", ["test process", "helper", "storage daemon"])
def test_a_qcow2_is_consistent_when_its_writer_is_killed(
    victim: str, backend: str, image: Path, writer: Writer, mounted_image: MountFactory
) -> None:
    pids = {"test process": writer.process.pid, "helper": writer.helper, "storage daemon": writer.daemon()}
    synced = 0
    while synced < BEFORE_THE_KILL:
        synced = writer.next_synced()
    os.kill(pids[victim], signal.SIGKILL)
    if backend == "nbd" and victim == "helper":
        assert wait_until(lambda: ended(pids["storage daemon"]), 10)
        disconnect(writer.device)
    synced = max(synced, writer.last_synced())
    assert wait_until(lambda: all(map(ended, pids.values())), 10)
    verdict = subprocess.run(
        ["qemu-img", "check", "-f", "qcow2", image], capture_output=True, text=True, check=False, env=environment()
    )
    # Only the daemon itself can have died between the making of a cluster and its use.
    allowed = (0, _LEAKS_ONLY) if victim == "storage daemon" else (0,)
    assert verdict.returncode in allowed, verdict.stdout + verdict.stderr
    with mounted_image(image, 1, mode="rw", backend=backend) as mounted:
        for number in range(synced - KEPT + 1, synced + 1):
            assert (mounted / f"file-{number}").read_bytes() == bytes([number % 256]) * PIECE
    with mounted_image(image, 1, backend=backend) as mounted:
        assert not mounted.dirty


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_image_that_another_process_writes_to_is_locked_until_that_has_ended(
    backend: str, image: Path, writer: Writer, mounted_image: MountFactory
) -> None:
    for mode in ("ro", "overlay", "rw"):
        with pytest.raises(ImageBusy), mounted_image(image, 1, mode=mode, backend=backend, timeout=0):
            pass
    writer.process.kill()
    writer.process.wait()
    assert wait_until(lambda: ended(writer.helper), 10)
    with mounted_image(image, 1, mode="rw", backend=backend) as mounted:
        (mounted / "mine").write_text("after it")


@pytest.mark.parametrize("format", FORMATS)
def test_an_image_that_is_read_is_not_written_to_and_one_that_is_written_to_not_read(
    format: str, image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    disk = image_factory(fstype="ext4", format=format, size="4M")
    with mounted_image(disk), mounted_image(disk), mounted_image(disk, mode="overlay"):
        with pytest.raises(ImageBusy), mounted_image(disk, mode="rw", timeout=0):
            pass
    with mounted_image(disk, mode="rw"):
        for mode in ("ro", "overlay", "rw"):
            with pytest.raises(ImageBusy), mounted_image(disk, mode=mode, timeout=0):
                pass
    with mounted_image(disk, mode="rw"):
        pass


@pytest.mark.parametrize("format", FORMATS)
def test_all_that_was_written_is_in_the_image_when_the_block_ends(
    format: str, image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disk = image_factory(fstype="ext4", format=format, size="16M")
    data = os.urandom(5_000_000)
    with mounted_image(disk, mode="rw") as mounted:
        (mounted / "large").write_bytes(data)
    plain = tmp_path / "plain"
    # By other programs than those that wrote it: what a cache still held would be missing.
    run(["qemu-img", "convert", "-f", format, "-O", "raw", str(disk), str(plain)])
    ext_is_sound(plain)
    assert ext_data(plain, "large") == data
