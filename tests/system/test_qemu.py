"""A real qemu-storage-daemon: what it opens, what it refuses, and that nothing of it is left."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine import loop
from pytest_imagemount.engine.image import identify
from pytest_imagemount.engine.mountinfo import mounts
from pytest_imagemount.engine.nbd.client import NbdError, NbdReader, open_export
from pytest_imagemount.engine.qemu import removal as qemu_removal
from pytest_imagemount.engine.qemu.daemon import StorageDaemon
from pytest_imagemount.engine.qemu.layers import open_disk
from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.undo import UndoStack, wait_until
from pytest_imagemount.errors import (
    CapabilityMissing,
    DeviceFailed,
    ImageBusy,
    ImageInvalid,
    ImageUnsafe,
    RequestInvalid,
)
from pytest_imagemount.programs import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.needs("qemu", "qemu-img")

MB = 1 << 20
PATTERN = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(MB // 32))
# The first and the fourth megabyte hold the pattern; the rest is a hole.
DISK_SIZE = 8 * MB


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[StorageDaemon]:
    folder = tmp_path / "run"
    folder.mkdir()
    daemon = StorageDaemon(folder)
    yield daemon
    daemon.stop()
    assert not list(folder.iterdir())


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.write(PATTERN)
        file.seek(3 * MB)
        file.write(PATTERN)
        file.truncate(DISK_SIZE)
    return path


@pytest.fixture
def qcow2(raw: Path) -> Path:
    return convert(raw, "qcow2")


def convert(raw: Path, format: str) -> Path:
    path = raw.with_name(f"disk.{format}")
    options = ["-o", "force_size=on"] if format == "vpc" else []
    run(["qemu-img", "convert", "-f", "raw", "-O", format, *options, str(raw), str(path)])
    return path


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def reading(daemon: StorageDaemon, node: str) -> Iterator[NbdReader]:
    export = daemon.export_nbd(node, writable=False)
    with NbdReader(*open_export(daemon.nbd_socket, export)) as reader:
        yield reader
    daemon.remove_export(export)


@pytest.mark.parametrize("format", ["raw", "qcow2", "qed", "qcow", "vmdk", "vdi", "vpc", "vhdx", "parallels"])
def test_every_format_gives_the_bytes_of_its_virtual_disk(daemon: StorageDaemon, raw: Path, format: str) -> None:
    path = raw if format == "raw" else convert(raw, format)
    with opened(path) as descriptor:
        node = daemon.add_image(descriptor, format, image=path.name, readonly=True)
        assert daemon.virtual_size(node) == DISK_SIZE
        with reading(daemon, node) as reader:
            assert reader.size == DISK_SIZE
            assert reader.pread(MB, 3 * MB) == PATTERN
            assert reader.pread(MB + 9, 5) == PATTERN[5:] + bytes(14)
        daemon.remove_node(node)


def test_a_window_is_those_bytes_and_no_more(daemon: StorageDaemon, qcow2: Path) -> None:
    with opened(qcow2) as descriptor:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        window = daemon.add_window(node, Window(3 * MB + 512, MB))
        with reading(daemon, window) as reader:
            assert reader.size == MB
            assert reader.pread(2 * MB, 0) == PATTERN[512:] + bytes(512)
        daemon.remove_node(window)
        daemon.remove_node(node)


def test_a_window_beyond_the_disk_is_refused(daemon: StorageDaemon, qcow2: Path) -> None:
    with opened(qcow2) as descriptor:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        with pytest.raises(DeviceFailed, match=r"'disk\.qcow2'.*actual size"):
            daemon.add_window(node, Window(DISK_SIZE - 512, 1024))
        daemon.remove_node(node)


def test_a_node_of_a_daemon_that_has_ended_is_told(tmp_path: Path, qcow2: Path) -> None:
    daemon = StorageDaemon(tmp_path)
    with opened(qcow2) as descriptor:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        daemon.stop()
        with pytest.raises(DeviceFailed, match="has ended"):
            daemon.export_nbd(node, writable=False)


def test_the_daemon_is_started_by_the_first_image_and_ended_by_stop(tmp_path: Path, qcow2: Path) -> None:
    daemon = StorageDaemon(tmp_path)
    states = [(daemon.alive, daemon.pid)]
    with opened(qcow2) as descriptor:
        daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        pid = daemon.pid
        assert pid is not None
        assert os.getsid(pid) == pid
        states.append((daemon.alive, pid))
        daemon.stop()
    assert not Path(f"/proc/{pid}").exists()
    states.append((daemon.alive, daemon.pid))
    assert states == [(True, None), (True, pid), (False, None)]
    daemon.stop()


def test_a_daemon_that_is_not_installed_is_named_with_its_package(
    tmp_path: Path, qcow2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_imagemount.engine.qemu.process.find_program", lambda name: None)
    with opened(qcow2) as descriptor, pytest.raises(CapabilityMissing, match="install package qemu-system-common"):
        StorageDaemon(tmp_path).add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)


def test_a_file_that_has_no_name_any_more_can_be_opened(daemon: StorageDaemon, qcow2: Path) -> None:
    with opened(qcow2) as descriptor:
        qcow2.unlink()
        daemon.remove_node(daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True))


def test_a_backing_file_is_not_opened(daemon: StorageDaemon, tmp_path: Path, raw: Path) -> None:
    path = tmp_path / "child.qcow2"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(raw), str(path)])
    with opened(path) as descriptor:
        node = daemon.add_image(descriptor, "qcow2", image="child.qcow2", readonly=True)
        with reading(daemon, node) as reader:
            assert reader.pread(512, 0) == bytes(512)
        daemon.remove_node(node)


def test_an_external_data_file_is_refused_and_closed_again(daemon: StorageDaemon, tmp_path: Path) -> None:
    path, data = tmp_path / "data.qcow2", tmp_path / "data.raw"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data}", str(path), "1M"])
    with opened(path) as descriptor:
        with pytest.raises(ImageUnsafe) as caught:
            daemon.add_image(descriptor, "qcow2", image="data.qcow2", readonly=True)
        assert str(data) in str(caught.value)
        assert not [link for link in descriptors_of(daemon) if link in (str(path), str(data))]


def descriptors_of(daemon: StorageDaemon) -> list[str]:
    return [str(entry.readlink()) for entry in Path(f"/proc/{daemon.pid}/fd").iterdir()]


def access_of(daemon: StorageDaemon, path: Path) -> list[int]:
    """The access modes by which the daemon has the file open."""
    folder = Path(f"/proc/{daemon.pid}")
    numbers = [entry.name for entry in (folder / "fd").iterdir() if str(entry.readlink()) == str(path)]
    infos = [dict(line.split(":\t") for line in (folder / "fdinfo" / n).read_text().splitlines()) for n in numbers]
    return [int(info["flags"], 8) & os.O_ACCMODE for info in infos]


def test_what_is_only_read_is_open_for_reading_only(daemon: StorageDaemon, qcow2: Path, raw: Path) -> None:
    with opened(qcow2, os.O_RDWR) as descriptor, opened(raw, os.O_RDWR) as other:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        assert set(access_of(daemon, qcow2)) == {os.O_RDONLY}
        plain = daemon.add_image(other, "raw", image="disk.raw", readonly=True)
        assert set(access_of(daemon, raw)) == {os.O_RDONLY}
        daemon.remove_node(plain)
        daemon.remove_node(node)
        daemon.remove_node(daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=False))


@pytest.fixture
def remembering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageDaemon]:
    now = time.time
    # So that no image was changed just now.
    monkeypatch.setattr("pytest_imagemount.engine.findings.time.time", lambda: now() + 60)
    daemon = StorageDaemon(tmp_path, remembers=True)
    yield daemon
    daemon.stop()


def test_an_image_that_was_opened_before_is_opened_with_its_window_at_once(
    remembering: StorageDaemon, qcow2: Path
) -> None:
    with opened(qcow2, os.O_RDWR) as descriptor:
        assert remembering.size_when_opened_before(descriptor, "qcow2") is None
        first = remembering.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        assert remembering.size_when_opened_before(descriptor, "qcow2") == DISK_SIZE
        again = remembering.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        assert remembering.virtual_size(again) == DISK_SIZE
        window = remembering.add_known_window(descriptor, "qcow2", Window(3 * MB, MB), image="disk.qcow2")
        assert set(access_of(remembering, qcow2)) == {os.O_RDONLY}
        with reading(remembering, window) as reader:
            assert (reader.size, reader.pread(MB, 0)) == (MB, PATTERN)
        for node in (window, again, first):
            remembering.remove_node(node)
        assert access_of(remembering, qcow2) == []


def test_a_file_that_another_image_names_is_found_among_nodes_without_names(
    remembering: StorageDaemon, qcow2: Path, tmp_path: Path
) -> None:
    path, data = tmp_path / "data.qcow2", tmp_path / "data.raw"
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", f"data_file={data}", str(path), "1M"])
    with opened(qcow2) as descriptor, opened(path) as other:
        nodes = [remembering.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True) for _ in range(2)]
        nodes.append(remembering.add_known_window(descriptor, "qcow2", Window(0, MB), image="disk.qcow2"))
        for _ in range(2):
            with pytest.raises(ImageUnsafe, match=f"names another file, {data};"):
                remembering.add_image(other, "qcow2", image="data.qcow2", readonly=True)
        assert str(data) not in descriptors_of(remembering)
        for node in nodes:
            remembering.remove_node(node)


def test_an_export_may_take_its_node_with_it(daemon: StorageDaemon, qcow2: Path) -> None:
    with opened(qcow2) as descriptor:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        window = daemon.add_window(node, Window(0, MB))
        for served, gone in ((node, False), (window, True)):
            export = daemon.export_nbd(served, writable=False)
            daemon.remove_export(export, and_node=served)
            with pytest.raises(DeviceFailed, match="has ended") if gone else nullcontext():
                daemon.virtual_size(served)
        daemon.remove_node(window)
        daemon.remove_node(node)
        assert str(qcow2) not in descriptors_of(daemon)


def test_removing_a_node_closes_its_file(daemon: StorageDaemon, qcow2: Path) -> None:
    with opened(qcow2) as descriptor:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        assert str(qcow2) in descriptors_of(daemon)
        daemon.remove_node(node)
        assert str(qcow2) not in descriptors_of(daemon)


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "Image is not in qcow2 format"),
    "another magic": (lambda content: b"XXXX" + content[4:], "Image is not in qcow2 format"),
    "cut in the header": (lambda content: content[:100], "header too short"),
    "unknown feature": (lambda content: content[:72] + b"\x00\x00\x01" + content[75:], "Unsupported qcow2 feature"),
    "unknown version": (lambda content: content[:4] + b"\x00\x00\x00\x09" + content[8:], "Unsupported qcow2 version 9"),
    "encrypted": (lambda content: content[:32] + b"\x00\x00\x00\x01" + content[36:], "key-secret"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_image_is_refused_in_qemus_words(daemon: StorageDaemon, qcow2: Path, kind: str) -> None:
    spoil, words = BAD[kind]
    qcow2.write_bytes(spoil(qcow2.read_bytes()))
    with opened(qcow2) as descriptor:
        with pytest.raises(ImageInvalid) as caught:
            daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        assert caught.value.image == "disk.qcow2"
        assert words in caught.value.reason
        assert "/proc/" not in str(caught.value)
        assert "qemu-img check -f qcow2" in caught.value.hint


def test_a_format_that_qemu_has_no_driver_for_is_told(daemon: StorageDaemon, raw: Path) -> None:
    with opened(raw) as descriptor, pytest.raises(CapabilityMissing, match="does not read zip"):
        daemon.add_image(descriptor, "zip", image="disk.zip", readonly=True)


def test_an_image_that_is_written_to_excludes_every_other_use(daemon: StorageDaemon, qcow2: Path) -> None:
    with opened(qcow2, os.O_RDWR) as descriptor, opened(qcow2, os.O_RDWR) as another:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=False)
        for readonly in (True, False):
            with pytest.raises(ImageBusy, match="has a lock on it"):
                daemon.add_image(another, "qcow2", image="disk.qcow2", readonly=readonly)
        daemon.remove_node(node)
        daemon.remove_node(daemon.add_image(another, "qcow2", image="disk.qcow2", readonly=False))


def test_an_image_that_another_program_writes_to_is_busy(daemon: StorageDaemon, qcow2: Path, tmp_path: Path) -> None:
    other = StorageDaemon(tmp_path)
    with opened(qcow2, os.O_RDWR) as descriptor:
        other.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=False)
        with opened(qcow2) as reader, pytest.raises(ImageBusy):
            daemon.add_image(reader, "qcow2", image="disk.qcow2", readonly=True)
        other.stop()
        daemon.remove_node(daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True))


def test_one_image_may_be_read_many_times_at_once(daemon: StorageDaemon, qcow2: Path) -> None:
    with opened(qcow2) as descriptor:
        nodes = [daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True) for _ in range(3)]
        for node in nodes:
            daemon.remove_node(node)


def test_writing_needs_a_descriptor_that_was_opened_for_it(daemon: StorageDaemon, qcow2: Path) -> None:
    with opened(qcow2) as descriptor, pytest.raises(RequestInvalid, match="opened for reading only"):
        daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=False)


def test_an_export_of_a_readonly_node_cannot_be_writable(daemon: StorageDaemon, qcow2: Path) -> None:
    with opened(qcow2) as descriptor:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        with pytest.raises(DeviceFailed, match="block-export-add was refused"):
            daemon.export_nbd(node, writable=True)
        daemon.remove_node(node)


@pytest.mark.needs("root", "loop")
def test_a_block_device_is_read_by_its_own_driver(daemon: StorageDaemon, raw: Path) -> None:
    with opened(raw) as descriptor:
        device = loop.attach(descriptor, Window(0, DISK_SIZE), image="disk.raw", readonly=True)
        with opened(Path(device.path)) as block_device:
            node = daemon.add_image(block_device, "raw", image=device.path, readonly=True)
            with reading(daemon, node) as reader:
                assert (reader.size, reader.pread(MB, 3 * MB)) == (DISK_SIZE, PATTERN)
            daemon.remove_node(node)
        device.detach()


def test_removing_what_something_is_built_on_fails_and_can_be_repeated(
    daemon: StorageDaemon, qcow2: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_removal, "_TIMEOUT", 0.05)
    with opened(qcow2) as descriptor:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        window = daemon.add_window(node, Window(0, MB))
        with pytest.raises(DeviceFailed, match="still in use"):
            daemon.remove_node(node)
        daemon.remove_node(window)
        daemon.remove_node(node)
        daemon.remove_node(node)


def test_an_export_ends_although_a_client_is_connected(daemon: StorageDaemon, qcow2: Path) -> None:
    with opened(qcow2) as descriptor:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        export = daemon.export_nbd(node, writable=False)
        reader = NbdReader(*open_export(daemon.nbd_socket, export))
        daemon.remove_export(export)
        daemon.remove_export(export)
        daemon.remove_node(node)
        with pytest.raises(NbdError):
            reader.pread(512, 0)
        reader.close()
        with pytest.raises(NbdError, match="no export of that name"):
            open_export(daemon.nbd_socket, export)


def scratch(tmp_path: Path) -> int:
    return os.open(tmp_path, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)


@pytest.mark.needs("fuse")
def test_a_fuse_export_is_a_file_of_the_disks_bytes_and_gone_afterwards(
    daemon: StorageDaemon, qcow2: Path, tmp_path: Path
) -> None:
    path = tmp_path / "export"
    path.touch()
    with opened(qcow2) as descriptor:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        export = daemon.export_file(node, path, writable=False)
        assert path.stat().st_size == DISK_SIZE
        assert path.read_bytes()[3 * MB : 4 * MB] == PATTERN
        daemon.remove_export(export)
        assert path.stat().st_size == 0
        daemon.remove_node(node)


@pytest.mark.needs("fuse")
def test_a_fuse_export_needs_a_regular_file(daemon: StorageDaemon, qcow2: Path, tmp_path: Path) -> None:
    with opened(qcow2) as descriptor:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        with pytest.raises(DeviceFailed, match="block-export-add was refused"):
            daemon.export_file(node, tmp_path / "missing", writable=False)
        daemon.remove_node(node)


@pytest.mark.needs("fuse")
@pytest.mark.parametrize("format", ["raw", "qcow2", "vmdk", "vdi"])
def test_an_overlay_is_writable_and_leaves_the_image_alone(
    daemon: StorageDaemon, raw: Path, tmp_path: Path, format: str
) -> None:
    image = raw if format == "raw" else convert(raw, format)
    before = sha256(image)
    path = tmp_path / "export"
    path.touch()
    with opened(image) as descriptor:
        undo = UndoStack()
        node = open_disk(daemon, identify(descriptor, image.name), "overlay", lambda: scratch(tmp_path), undo)
        assert daemon.virtual_size(node) == DISK_SIZE
        export = daemon.export_file(node, path, writable=True)
        with path.open("r+b", buffering=0) as file:
            file.seek(MB - 3)
            file.write(b"overlay")
            os.fsync(file.fileno())
        content = path.read_bytes()
        assert content[MB - 6 : MB + 7] == PATTERN[-6:-3] + b"overlay" + bytes(3)
        assert content[3 * MB : 4 * MB] == PATTERN
        daemon.remove_export(export)
        assert undo.run() == []
        assert not [link for link in descriptors_of(daemon) if str(tmp_path) in link and "run/" not in link]
    assert sha256(image) == before


@pytest.mark.needs("fuse")
def test_mode_rw_writes_to_the_image(daemon: StorageDaemon, qcow2: Path, tmp_path: Path) -> None:
    path = tmp_path / "export"
    path.touch()
    with opened(qcow2, os.O_RDWR) as descriptor:
        undo = UndoStack()
        node = open_disk(daemon, identify(descriptor, "disk.qcow2"), "rw", lambda: scratch(tmp_path), undo)
        export = daemon.export_file(node, path, writable=True)
        with path.open("r+b", buffering=0) as file:
            file.write(b"written")
        daemon.remove_export(export)
        assert undo.run() == []
    run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(qcow2), str(tmp_path / "after")])
    assert (tmp_path / "after").read_bytes()[:10] == b"written" + PATTERN[7:10]


def kill(daemon: StorageDaemon) -> None:
    assert daemon.pid is not None
    os.kill(daemon.pid, signal.SIGKILL)
    assert wait_until(lambda: not daemon.alive, 5)


def test_a_killed_daemon_is_told_with_its_signal_and_removals_succeed(daemon: StorageDaemon, qcow2: Path) -> None:
    with opened(qcow2) as descriptor:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        export = daemon.export_nbd(node, writable=False)
        kill(daemon)
        with pytest.raises(DeviceFailed, match=r"image 'other\.qcow2': qemu-storage-daemon: it was ended by SIGKILL"):
            daemon.add_image(descriptor, "qcow2", image="other.qcow2", readonly=True)
        daemon.remove_export(export)
        daemon.remove_node(node)


@pytest.mark.needs("fuse")
@pytest.mark.parametrize("by", ["remove_export", "stop"])
def test_the_fuse_mount_of_a_killed_daemon_is_unmounted(
    daemon: StorageDaemon, qcow2: Path, tmp_path: Path, by: str
) -> None:
    path = tmp_path / "export"
    path.touch()
    with opened(qcow2) as descriptor:
        node = daemon.add_image(descriptor, "qcow2", image="disk.qcow2", readonly=True)
        export = daemon.export_file(node, path, writable=False)
        kill(daemon)
        assert [mount for mount in mounts() if mount.target == path]
        if by == "stop":
            daemon.stop()
        else:
            daemon.remove_export(export)
        assert path.stat().st_size == 0


def test_what_a_dying_daemon_printed_is_in_the_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "qemu-storage-daemon"
    script.write_text("#!/bin/sh\nyes 'out of luck' | head -n 20000 >&2\necho 'the last word' >&2\nexit 7\n")
    script.chmod(0o755)
    monkeypatch.setattr("pytest_imagemount.engine.qemu.process.find_program", lambda name: str(script))
    with opened(script) as descriptor, pytest.raises(DeviceFailed, match="ended with exit status 7") as caught:
        StorageDaemon(tmp_path).add_image(descriptor, "raw", image="disk.raw", readonly=True)
    assert "out of luck" in str(caught.value)
    assert len(str(caught.value)) < 5000


DIE = """
import os, signal, sys
from pathlib import Path
from pytest_imagemount.engine.qemu.daemon import StorageDaemon
daemon = StorageDaemon(Path(sys.argv[1]))
daemon.add_image(os.open(sys.argv[2], os.O_RDONLY), "qcow2", image="disk.qcow2", readonly=True)
if len(sys.argv) > 3:
    daemon.export_file("i1", Path(sys.argv[3]), writable=False)
print(daemon.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def has_ended(pid: int) -> bool:
    """Whether the process runs no more; init may take its time to collect it."""
    try:
        return not Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


@pytest.mark.parametrize("fuse", [False, pytest.param(True, marks=pytest.mark.needs("fuse"))])
def test_the_daemon_goes_with_a_process_that_is_killed(tmp_path: Path, qcow2: Path, fuse: bool) -> None:
    path = tmp_path / "export"
    path.touch()
    arguments = [str(tmp_path), str(qcow2), *([str(path)] if fuse else [])]
    done = subprocess.run([sys.executable, "-c", DIE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert wait_until(lambda: has_ended(int(done.stdout)), 5)
    assert not [mount for mount in mounts() if mount.target == path]
