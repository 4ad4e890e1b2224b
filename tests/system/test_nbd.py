"""Real NBD devices: qcow2 → storage daemon → NBD export of a window → /dev/nbdN → mounted ext4, and back."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine import syscalls
from pytest_imagemount.engine.image import identify
from pytest_imagemount.engine.nbd import attach as nbd
from pytest_imagemount.engine.nbd.client import NbdReader, open_export
from pytest_imagemount.engine.nbd.netlink import NbdNetlink
from pytest_imagemount.engine.nbd.pool import Busy, Holder, Lease, NbdPool
from pytest_imagemount.engine.nbd.state import kernel_state
from pytest_imagemount.engine.qemu.daemon import StorageDaemon
from pytest_imagemount.engine.qemu.layers import open_disk
from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.undo import UndoStack, wait_until
from pytest_imagemount.errors import CapabilityMissing, DeviceFailed, DevicesBusy
from pytest_imagemount.programs import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_imagemount.factory import ImageFactory

pytestmark = pytest.mark.needs("root", "nbd-netlink", "qemu", "qemu-img", "mke2fs", "ext4")

MB = 1 << 20
WINDOW = Window(MB, 16 * MB)
US = Holder(os.getpid(), "gw0", "test", "disk.qcow2")
# The devices of the pool that tests use alone, so that nothing else on the machine is in the way: high indexes, which
# the kernel makes at the first CONNECT.
FIRST = 20


class Disk:
    """A window of an image, exported by a daemon of our own."""

    def __init__(self, folder: Path, image: Path, mode: str) -> None:
        self.undo = UndoStack()
        self.daemon = StorageDaemon(folder)
        self.undo.push("stop", self.daemon.stop)
        fd = os.open(image, (os.O_RDWR if mode == "rw" else os.O_RDONLY) | os.O_CLOEXEC)
        self.undo.push("close", lambda: os.close(fd))
        self.node = open_disk(self.daemon, identify(fd, image.name), mode, lambda: scratch(folder), self.undo)
        window = self.daemon.add_window(self.node, WINDOW)
        self.undo.push("remove window", lambda: self.daemon.remove_node(window))
        self.export = self.daemon.export_nbd(window, writable=mode != "ro")
        self.undo.push("remove export", lambda: self.daemon.remove_export(self.export))
        self.pool = NbdPool(folder, FIRST + 4, start=FIRST)

    def attach(self) -> nbd.NbdDevice:
        device = nbd.attach(self.daemon.nbd_socket, self.export, pool=self.pool, holder=US)
        assert isinstance(device, nbd.NbdDevice)
        return device

    def lease(self) -> Lease | Busy:
        return self.pool.try_lease(US)


def scratch(folder: Path) -> int:
    return os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A qcow2 with an ext4 at WINDOW."""
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text("web01\n")
    raw, path = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    with raw.open("wb") as file:
        file.truncate(WINDOW.end + MB)
    run(["mke2fs", "-q", "-t", "ext4", "-d", str(tree), "-E", f"offset={WINDOW.offset}", str(raw), "16M"])
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(path)])
    raw.unlink()
    return path


@contextmanager
def exported(folder: Path, image: Path, mode: str = "ro") -> Iterator[Disk]:
    disk = Disk(folder, image, mode)
    try:
        yield disk
    finally:
        assert disk.undo.run() == []


@pytest.fixture
def disk(folder: Path, image: Path) -> Iterator[Disk]:
    with exported(folder, image) as disk:
        yield disk


@contextmanager
def mounted(device: nbd.NbdDevice, target: Path, *, readonly: bool = True) -> Iterator[Path]:
    """The ext4 of ``device``, which is let go of."""
    target.mkdir(exist_ok=True)
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | (syscalls.MS_RDONLY if readonly else 0)
    syscalls.mount(device.path, str(target), "ext4", flags, "noload" if readonly else "")
    device.arm()
    try:
        yield target
    finally:
        syscalls.umount2(str(target))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def released(disk: Disk) -> bool:
    """Whether the first device of the pool can be leased: its lock is free and the kernel says idle."""
    lease = disk.lease()
    if isinstance(lease, Busy):
        return False
    index = lease.index
    lease.release()
    return index == FIRST


def test_the_whole_chain_and_the_last_unmount_disconnects(disk: Disk, image: Path, tmp_path: Path) -> None:
    before = sha256(image)
    device = disk.attach()
    assert device.path == f"/dev/nbd{FIRST}"
    state = kernel_state(device.index)
    assert (state.pid, state.sectors) == (os.getpid(), WINDOW.size // 512)
    assert state.backend.startswith(f"pytest-imagemount:{os.getpid()}:")
    assert Path(f"/sys/block/nbd{FIRST}/ro").read_text() == "1\n"
    with mounted(device, tmp_path / "mnt") as target:
        assert (target / "etc/hostname").read_text() == "web01\n"
        assert device.fd == -1
    assert wait_until(lambda: kernel_state(device.index).idle, 2)
    assert isinstance(disk.pool.try_lease(US, skip=set(range(FIRST)) | {FIRST + 1, FIRST + 2, FIRST + 3}), Busy)
    device.detach()
    assert released(disk)
    assert sha256(image) == before


def test_a_device_is_not_disconnected_by_others_that_open_and_close_it(disk: Disk) -> None:
    device = disk.attach()
    for _ in range(3):  # as udev does with every new device
        os.close(os.open(device.path, os.O_RDONLY))
    assert not kernel_state(device.index).idle
    assert len(os.pread(device.fd, 4096, 0)) == 4096
    device.detach()
    assert kernel_state(device.index).idle


def test_detach_disconnects_a_device_that_was_never_mounted(disk: Disk) -> None:
    device = disk.attach()
    device.detach()
    assert kernel_state(device.index).idle
    assert released(disk)
    device.detach()


def test_the_reader_and_the_device_give_the_same_bytes(disk: Disk) -> None:
    export = disk.daemon.export_nbd(disk.node, writable=False)
    device = disk.attach()
    with NbdReader(*open_export(disk.daemon.nbd_socket, export)) as reader:
        assert reader.pread(MB, WINDOW.offset + 1024) == os.pread(device.fd, MB, 1024)
    device.detach()
    disk.daemon.remove_export(export)


@pytest.mark.parametrize("mode", ["overlay", "rw"])
def test_writes_reach_the_image_in_mode_rw_only(folder: Path, image: Path, tmp_path: Path, mode: str) -> None:
    before = sha256(image)
    with exported(folder, image, mode) as disk:
        reader_export = disk.daemon.export_nbd(disk.node, writable=False)
        with NbdReader(*open_export(disk.daemon.nbd_socket, reader_export)):
            device = disk.attach()
            with mounted(device, tmp_path / "mnt", readonly=False) as target:
                (target / "etc/hostname").write_text("changed\n")
            device.detach()
        disk.daemon.remove_export(reader_export)
    assert (sha256(image) == before) == (mode == "overlay")
    with exported(folder, image) as disk:
        device = disk.attach()
        with mounted(device, tmp_path / "mnt") as target:
            assert (target / "etc/hostname").read_text() == ("changed\n" if mode == "rw" else "web01\n")
        device.detach()


def test_detach_writes_out_what_was_written_to_the_device(folder: Path, image: Path) -> None:
    with exported(folder, image, "rw") as disk:
        device = disk.attach()
        os.pwrite(device.fd, b"written", 0)
        device.detach()
        device = disk.attach()
        assert os.pread(device.fd, 7, 0) == b"written"
        device.detach()


def test_a_mounted_device_is_not_pulled_from_under_its_file_system(disk: Disk, tmp_path: Path) -> None:
    device = disk.attach()
    with mounted(device, tmp_path / "mnt") as target:
        with pytest.raises(DeviceFailed, match="still mounted") as caught:
            device.detach()
        assert caught.value.errno == errno.EBUSY
        assert (target / "etc/hostname").read_text() == "web01\n"
        assert not released(disk)
    device.detach()
    assert released(disk)


def test_a_device_that_another_program_took_means_the_next_one(disk: Disk) -> None:
    ours, theirs = socket.socketpair()
    driver = NbdNetlink.open()
    assert driver is not None
    with ours, theirs, driver:
        driver.connect(FIRST, connection=ours, size=MB, block_size=512, server_flags=1, backend="theirs")
        device = disk.attach()
        assert device.index == FIRST + 1
        device.detach()
        driver.disconnect(FIRST)
    assert wait_until(lambda: kernel_state(FIRST).idle, 2)


def test_a_device_that_the_kernel_refuses_as_busy_means_the_next_one(disk: Disk) -> None:
    nbd.attach(disk.daemon.nbd_socket, disk.export, pool=disk.pool, holder=US).detach()  # so that the node is there
    # An open idle device looks free in sysfs, but CONNECT answers EBUSY.
    holding = os.open(f"/dev/nbd{FIRST}", os.O_RDONLY)
    assert kernel_state(FIRST).idle
    device = disk.attach()
    assert device.index == FIRST + 1
    device.detach()
    os.close(holding)
    assert released(disk)


def test_no_free_device_is_an_answer_that_names_the_holders(disk: Disk) -> None:
    disk.pool = NbdPool(disk.daemon.nbd_socket.parent, FIRST + 1, start=FIRST)
    held = [lease for lease in (disk.lease() for _ in range(FIRST + 1)) if isinstance(lease, Lease)]
    with pytest.raises(DevicesBusy) as caught:
        disk.attach()
    assert len(caught.value.holders) == FIRST + 1
    assert f"nbd{FIRST}: pid {os.getpid()}, gw0, test, disk.qcow2, for " in str(caught.value)
    for lease in held:
        lease.release()


def test_a_lease_taken_beforehand_is_used_and_given_back(disk: Disk) -> None:
    lease = nbd.lease_device(disk.pool, US, skip=[FIRST])
    device = nbd.attach(disk.daemon.nbd_socket, disk.export, pool=disk.pool, holder=US, lease=lease)
    assert device.index == lease.index == FIRST + 1
    device.detach()
    lease.release()
    again = nbd.lease_device(disk.pool, US, skip=[FIRST])
    assert again.index == FIRST + 1
    with pytest.raises(OSError, match="no export of that name"):
        nbd.attach(disk.daemon.nbd_socket, "export-99", pool=disk.pool, holder=US, lease=again)
    nbd.lease_device(disk.pool, US, skip=[FIRST]).release()


def test_a_daemon_that_is_killed_gives_io_errors_and_everything_is_undone(disk: Disk, tmp_path: Path) -> None:
    device = disk.attach()
    with mounted(device, tmp_path / "mnt"):
        assert disk.daemon.pid is not None
        os.kill(disk.daemon.pid, signal.SIGKILL)
        assert wait_until(lambda: not disk.daemon.alive, 5)
        descriptor = os.open(device.path, os.O_RDONLY | os.O_DIRECT)
        with pytest.raises(OSError) as caught:
            os.preadv(descriptor, [mapped_page()], 8 * MB)
        os.close(descriptor)
        assert caught.value.errno == errno.EIO
    device.detach()
    assert released(disk)


def mapped_page() -> memoryview:
    import mmap

    return memoryview(mmap.mmap(-1, 4096))


def test_a_daemon_that_is_killed_under_a_device_that_is_not_mounted_is_undone(disk: Disk) -> None:
    device = disk.attach()
    assert disk.daemon.pid is not None
    os.kill(disk.daemon.pid, signal.SIGKILL)
    device.detach()
    assert released(disk)


def test_an_export_that_is_not_there_leaves_no_lease(disk: Disk) -> None:
    with pytest.raises(OSError, match="no export of that name"):
        nbd.attach(disk.daemon.nbd_socket, "export-99", pool=disk.pool, holder=US)
    assert released(disk)


def test_a_failure_after_connect_leaves_nothing_connected(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    def reconfigure(self: NbdNetlink, index: int, *, client_flags: int, backend: str) -> None:
        raise OSError(errno.EINVAL, "must specify backend")

    with monkeypatch.context() as patch:
        patch.setattr(NbdNetlink, "reconfigure", reconfigure)
        with pytest.raises(DeviceFailed, match=f"/dev/nbd{FIRST}: the kernel refused: must specify backend"):
            disk.attach()
    assert wait_until(lambda: released(disk), 2)


def test_reconfigure_without_the_backend_is_refused_by_the_kernel(disk: Disk) -> None:
    device = disk.attach()
    driver = NbdNetlink.open()
    assert driver is not None
    with driver, pytest.raises(OSError) as caught:
        driver.reconfigure(device.index, client_flags=0, backend="another")
    assert caught.value.errno == errno.EINVAL
    device.detach()


def test_the_kernel_lists_the_devices_by_netlink(disk: Disk) -> None:
    device = disk.attach()
    driver = NbdNetlink.open()
    assert driver is not None
    with driver:
        assert driver.status(device.index) == {device.index: True}
        assert driver.status()[device.index]
        device.detach()
        assert driver.status(device.index) == {device.index: False}


def test_the_last_close_of_an_armed_device_disconnects_it(disk: Disk) -> None:
    device = disk.attach()
    device.arm()
    assert wait_until(lambda: kernel_state(device.index).idle, 2)
    device.detach()


def test_disconnect_takes_a_device_whoever_connected_it(disk: Disk) -> None:
    connection, export = open_export(disk.daemon.nbd_socket, disk.export)
    driver = NbdNetlink.open()
    assert driver is not None
    with connection, driver:
        driver.connect(
            FIRST, connection=connection, size=export.size, block_size=512, server_flags=export.flags, backend="theirs"
        )
    nbd.disconnect(FIRST)
    assert kernel_state(FIRST).idle
    nbd.disconnect(FIRST)


def test_disconnect_says_so_when_a_program_has_the_device_open(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nbd, "GONE_TIMEOUT", 0.05)
    device = disk.attach()
    with pytest.raises(DeviceFailed, match="a program has it open"):
        nbd.disconnect(device.index)
    device.detach()
    assert released(disk)


def test_a_device_with_blocks_of_4096_bytes(disk: Disk) -> None:
    device = nbd.attach(disk.daemon.nbd_socket, disk.export, pool=disk.pool, holder=US, block_size=4096)
    assert Path(f"/sys/block/nbd{device.index}/queue/logical_block_size").read_text() == "4096\n"
    device.detach()


def test_a_missing_module_is_named_with_its_remedy(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NbdNetlink, "open", classmethod(lambda cls: None))
    monkeypatch.setattr(nbd, "module_loaded", lambda root: False)
    with pytest.raises(CapabilityMissing, match="modprobe nbd max_part=0"):
        disk.attach()


IN_A_CONTAINER = """
import sys
from pathlib import Path
from pytest_imagemount import mount_image
from pytest_imagemount.engine.nbd.netlink import NbdNetlink
assert NbdNetlink.open() is None
for mode in ("ro", "overlay"):
    with mount_image(sys.argv[1], backend="nbd", mode=mode) as image:
        assert (image / "lost+found").is_dir()
        state = Path("/sys/block") / Path(image.device).name
        assert (state / "pid").exists()
        if mode == "overlay":
            (image / "written").write_text("x")
    assert not (state / "pid").exists()
    assert (state / "size").read_text() == "0\\n"
with mount_image(sys.argv[1], backend="nbd") as image:
    assert not (image / "written").exists()
    print(image.device, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def container(image_factory: ImageFactory) -> Iterator[subprocess.Popen[str]]:
    """A process in a network namespace of its own, where the kernel shows no netlink family, that holds a mount."""
    image = image_factory(fstype="ext4", format="qcow2")
    argv = ["unshare", "--net", sys.executable, "-c", IN_A_CONTAINER, str(image)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_a_container_with_a_network_of_its_own_has_nbd_too(container: subprocess.Popen[str]) -> None:
    container.communicate(timeout=60)
    assert container.returncode == 0


def test_a_mount_in_a_container_is_gone_when_its_process_is_killed(container: subprocess.Popen[str]) -> None:
    assert container.stdout is not None
    index = int(container.stdout.readline().strip().removeprefix("/dev/nbd"))
    assert not kernel_state(index).idle
    container.kill()
    assert wait_until(lambda: kernel_state(index).idle, 5)


DIE = """
import os, signal, sys
from pathlib import Path
from pytest_imagemount.engine import syscalls
from tests.system.test_nbd import Disk
disk = Disk(Path(sys.argv[1]), Path(sys.argv[2]), "ro")
device = disk.attach()
if sys.argv[3] == "mounted":
    syscalls.mount(device.path, sys.argv[4], "ext4", syscalls.MS_RDONLY, "noload")
    device.arm()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("state", ["attached", "mounted"])
def test_the_kernel_disconnects_when_the_owner_is_killed(folder: Path, image: Path, tmp_path: Path, state: str) -> None:
    target = tmp_path / "mnt"
    target.mkdir()
    arguments = [str(folder), str(image), state, str(target)]
    done = subprocess.run([sys.executable, "-c", DIE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if state == "mounted":
        assert not kernel_state(FIRST).idle
        syscalls.umount2(str(target))
    assert wait_until(lambda: kernel_state(FIRST).idle, 2)
    lease = NbdPool(folder, FIRST + 1, start=FIRST).try_lease(US)
    assert isinstance(lease, Lease)
    assert lease.index == FIRST
    lease.release()
    (folder / "nbd.sock").unlink(missing_ok=True)
