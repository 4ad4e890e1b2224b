"""A helper is killed: what it left is found, told, and taken down; what is not its own is left alone.

The helpers of these tests have a base folder of their own, so that no other test run takes down what they leave.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount import cli, processes
from pytest_imagemount.engine import folders, loop, syscalls
from pytest_imagemount.engine.mountinfo import mounts
from pytest_imagemount.engine.nbd.state import kernel_state
from pytest_imagemount.engine.processes import ProcessId, start_time
from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.undo import wait_until
from pytest_imagemount.engine.workspace import Owner, Workspace
from pytest_imagemount.errors import RequestInvalid, TeardownError
from pytest_imagemount.helper.journal import read_journal
from pytest_imagemount.helper.keeping import linger, wait_for_end_of_kept
from pytest_imagemount.helper.operations import Mounts
from pytest_imagemount.helper.protocol import Open
from pytest_imagemount.helper.reclaim import reclaim
from tests.leaks import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_imagemount.helper.record import Record
    from pytest_imagemount.helper.report import Item, Report

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs")

HELPER = """
import dataclasses, json, os, sys
from pathlib import Path
from pytest_imagemount.engine import folders
folders.base_folder = lambda: Path(sys.argv[1])
from pytest_imagemount.engine.workspace import Owner, Workspace
from pytest_imagemount.helper.operations import Mounts
from pytest_imagemount.helper.protocol import Open
workspace = Workspace(nbd_start=11)
mounts = Mounts(workspace, Owner(os.getppid(), "gw7"))
held = []
for number, argument in enumerate(sys.argv[2:], 1):
    options = json.loads(argument)
    path, attach = options["path"], options.get("attach", False)
    descriptors = [os.open(path, os.O_RDONLY)]
    if "mountpoint" in options:
        descriptors.append(os.open(options["mountpoint"], os.O_RDONLY | os.O_DIRECTORY))
    mode, backend = options.get("mode", "ro"), options.get("backend", "auto")
    carries = ("image", "mountpoint")[:len(descriptors)]
    request = Open(number, "disk", path, None, None, mode, None, (), backend, f"test_{number}", attach, carries=carries)
    held.append(mounts.open(request, descriptors).to_wire())
print(json.dumps({"folder": str(workspace.folder), "daemon": workspace.daemon_pid, "held": held}), flush=True)
sys.stdin.read()
assert mounts.close() == []
workspace.close()
"""


class Helper:
    """A process that holds images as the helper does, until it is killed or told to end."""

    def __init__(self, base: Path, *images: Path | dict[str, Any]) -> None:
        arguments = [json.dumps({"path": str(image)} if isinstance(image, Path) else image) for image in images]
        self.process = subprocess.Popen(
            [sys.executable, "-c", HELPER, base, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        self.folder = Path(told["folder"])
        self.daemon: int | None = told["daemon"]
        self.held: list[dict[str, Any]] = told["held"]

    @property
    def roots(self) -> list[Path]:
        return [Path(held["mountpoint"]) for held in self.held if "mountpoint" in held]

    @property
    def devices(self) -> list[str]:
        return [held.get("device") or held["path"] for held in self.held]

    def kill(self) -> None:
        """SIGKILL; returns when its storage daemon, which gets SIGTERM by that, has ended too."""
        self.process.kill()
        self.process.wait()
        if self.daemon is not None:
            assert wait_until(lambda: start_time(self.daemon or 0) is None, 5)

    def end(self) -> None:
        self.process.communicate()
        assert self.process.returncode == 0


@pytest.fixture
def start(base: Path) -> Iterator[Callable[..., Helper]]:
    """Starts helpers, and ends those that the test did not."""
    started: list[Helper] = []

    def start(*images: Path | dict[str, Any]) -> Helper:
        started.append(Helper(base, *images))
        return started[-1]

    yield start
    for helper in started:
        if helper.process.poll() is None:
            helper.end()
        helper.process.communicate()


def state(base: Path) -> set[str]:
    """What is there of the helpers of one test: other tests may be at work on the same machine."""
    marks = {str(base), *(note.parent.name for note in base.glob("*/*/alive"))}
    files = {f"{path} {path.lstat().st_mtime_ns}" for path in base.glob("*/*/journal*")}
    return files | {line for line in snapshot() if any(mark in line for mark in marks)}


def records_of(folder: Path) -> list[Record]:
    """What the journal in the helper's folder says."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return read_journal(descriptor, folder.name, owner=0)[0]
    finally:
        os.close(descriptor)


def add_to_journal(folder: Path, record: Record) -> None:
    """As if the helper had written it last."""
    data = json.dumps(record.to_json()).encode()
    with (folder / "journal").open("ab") as file:
        file.write(b"%08x %s\n" % (zlib.crc32(data), data))


def told(items: list[Item]) -> list[str]:
    return [item.what for item in items]


def reasons(items: list[Item]) -> str:
    return "\n".join(str(item) for item in items)


def clean(base: Path) -> Report:
    """Reclaims, after a dry run has told exactly the same and changed nothing."""
    before = state(base)
    dry = reclaim(base, dry_run=True)
    assert state(base) == before
    done = reclaim(base, dry_run=False)
    assert (dry.reclaimed, dry.left, dry.not_ours) == (done.reclaimed, done.left, done.not_ours)
    return done


def test_what_a_killed_helper_left_is_reclaimed(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    disk = image_factory(fstype="ext4")
    helper = start(disk, disk)
    helper.kill()
    assert all(root.is_mount() for root in helper.roots)
    report = clean(base)
    first, second = helper.roots
    assert told(report.reclaimed) == [
        f"unmount {second}",
        f"unmount {first}",
        *sorted(f"detach {device}" for device in helper.devices),
        f"remove {helper.folder}",
    ]
    assert report.left == report.not_ours == []
    assert state(base) == set()
    assert not helper.folder.exists()
    again = reclaim(base, dry_run=False)
    assert again.reclaimed == again.left == []


@pytest.mark.needs("fuse", "qemu", "qemu-img")
def test_fuse_mounts_of_a_killed_helper_are_reclaimed(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    raw, qcow2 = image_factory(fstype="ext4"), image_factory(fstype="ext4", format="qcow2")
    helper = start(
        raw, {"path": str(qcow2), "backend": "fuse"}, {"path": str(raw), "backend": "fuse", "mode": "overlay"}
    )
    helper.kill()
    report = clean(base)
    assert report.left == []
    assert sum(what.startswith("unmount") for what in told(report.reclaimed)) >= 3
    assert state(base) == set()


@pytest.mark.needs("fuse", "qemu")
def test_a_storage_daemon_that_is_stuck_is_ended_before_what_waits_for_it(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    disk = image_factory(fstype="ext4")
    helper = start(disk)
    helper.kill()
    export = helper.folder / "export-9"
    export.touch()
    node = f"file,node-name=disk,read-only=on,filename={disk}"
    arguments = ["--blockdev", node, "--export", "fuse,id=export,node-name=disk,mountpoint=export-9"]
    with subprocess.Popen(["qemu-storage-daemon", *arguments], cwd=helper.folder) as daemon:
        assert wait_until(lambda: any(entry.target == export for entry in mounts()), 5)
        daemon.send_signal(signal.SIGSTOP)  # from here on, whoever asks for a fact of the export waits for ever
        try:
            planned = told(reclaim(base, dry_run=True).reclaimed)
            report = reclaim(base, dry_run=False)
        finally:
            daemon.kill()
    assert planned[0] == f"end qemu-storage-daemon, process {daemon.pid}"
    assert planned[-2:] == [f"unmount {export}", f"remove {helper.folder}"]
    assert (told(report.reclaimed), report.left) == (planned, [])


@pytest.mark.needs("nbd", "qemu", "qemu-img")
def test_nbd_mounts_of_a_killed_helper_are_reclaimed(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    qcow2 = image_factory(fstype="ext4", format="qcow2")
    helper = start({"path": str(qcow2), "backend": "nbd"}, {"path": str(qcow2), "backend": "nbd", "mode": "overlay"})
    indexes = [int(device.removeprefix("/dev/nbd")) for device in helper.devices]
    token = helper.folder.name
    assert [kernel_state(index).backend for index in indexes] == [f"pytest-imagemount:{token}:{n}" for n in (1, 2)]
    helper.kill()
    report = reclaim(base, dry_run=False)
    assert report.left == []
    assert {f"disconnect {device}" for device in helper.devices} <= set(told(report.reclaimed))
    assert all(kernel_state(index).idle for index in indexes)
    assert state(base) == set()


def test_the_next_run_reclaims_by_its_first_mount(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    disk = image_factory(fstype="ext4")
    dead = start(disk)
    dead.kill()
    fresh = start(disk)
    assert not dead.folder.exists()
    assert [root.is_mount() for root in (*dead.roots, *fresh.roots)] == [False, True]
    fresh.end()
    assert state(base) == set()


def test_a_live_helper_is_never_touched(base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]) -> None:
    disk = image_factory(fstype="ext4")
    live, dead = start(disk), start(disk)
    dead.kill()
    report = clean(base)
    assert {item.folder for item in report.reclaimed} == {str(dead.folder)}
    assert report.left == []
    assert live.roots[0].is_mount()
    live.end()


def test_a_mount_at_a_callers_folder_is_reclaimed_and_the_folder_stays(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper], tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    helper = start({"path": str(image_factory(fstype="ext4")), "mountpoint": str(place)})
    assert helper.roots == [place]
    helper.kill()
    assert place.is_mount()
    assert f"unmount {place}" in told(clean(base).reclaimed)
    assert not place.is_mount()
    assert place.is_dir()


def test_an_attached_device_goes_with_its_helper(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    helper = start({"path": str(image_factory(fstype="ext4")), "attach": True})
    helper.kill()
    assert wait_until(lambda: loop.tag_of(int(helper.devices[0].removeprefix("/dev/loop"))) is None, 2)
    assert told(clean(base).reclaimed) == [f"remove {helper.folder}"]
    assert state(base) == set()


def test_what_somebody_mounted_from_our_device_is_left_and_told(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper], tmp_path: Path
) -> None:
    helper = start({"path": str(image_factory(fstype="ext4")), "attach": True})
    place = tmp_path / "mine"
    place.mkdir()
    syscalls.mount(helper.devices[0], str(place), "ext4", syscalls.MS_RDONLY, "")
    try:
        helper.kill()
        report = clean(base)
        assert report.reclaimed == []
        assert f"{helper.devices[0]} at {place}: {helper.devices[0]} is ours, but no helper mounted it" in reasons(
            report.left
        )
        assert place.is_mount()
    finally:
        syscalls.umount2(str(place))
    assert clean(base).left == []


def test_a_foreign_mount_in_the_folder_is_left_and_told(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    helper = start(image_factory(fstype="ext4"))
    helper.kill()
    foreign = helper.folder / "mount-9"
    foreign.mkdir()
    syscalls.mount("foreign", str(foreign), "tmpfs", 0, "")
    try:
        report = clean(base)
        assert f"unmount {helper.roots[0]}" in told(report.reclaimed)
        assert f"foreign at {foreign}: it is in a folder of ours, but no helper mounted it" in reasons(report.left)
        assert foreign.is_mount()
        assert helper.folder.exists()
    finally:
        syscalls.umount2(str(foreign))
    assert told(clean(base).reclaimed) == [f"remove {helper.folder}"]


def test_a_mount_over_ours_is_left_and_told(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    helper = start(image_factory(fstype="ext4"))
    helper.kill()
    root = helper.roots[0]
    syscalls.mount("above", str(root), "tmpfs", 0, "")
    try:
        report = clean(base)
        assert report.reclaimed == [] or f"unmount {root}" not in told(report.reclaimed)
        assert "it lies on a mount of ours" in reasons(report.left)
        assert len([entry for entry in mounts() if entry.target == root]) == 2
    finally:
        syscalls.umount2(str(root))
    assert f"unmount {root}" in told(clean(base).reclaimed)


@contextmanager
def unmounted_by_hand(helper: Helper) -> Iterator[None]:
    """The first mount of a dead helper is gone, and its device free for anybody."""
    syscalls.umount2(str(helper.roots[0]))
    number = int(helper.devices[0].removeprefix("/dev/loop"))
    assert wait_until(lambda: not Path(f"/sys/block/loop{number}/loop").exists(), 2)
    yield


def test_a_loop_device_that_somebody_else_has_now_is_left_alone(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper], tmp_path: Path
) -> None:
    disk = image_factory(fstype="ext4")
    helper = start(disk)
    helper.kill()
    with unmounted_by_hand(helper), ExitStack() as undo:
        file = undo.enter_context(disk.open("rb"))
        for _ in range(64):  # until the kernel gives out the same number
            other = loop.attach(file.fileno(), Window(0, disk.stat().st_size), image="other", readonly=True)
            undo.callback(other.detach)
            if other.path == helper.devices[0]:
                break
        assert other.path == helper.devices[0]
        report = clean(base)
        assert told(report.reclaimed) == [f"remove {helper.folder}"]
        assert f"{other.path}: mount 1 had it; somebody else has it now" in reasons(report.not_ours)
        assert loop.tag_of(other.number) == f"imagemount:{os.getpid()}:other"


def test_a_mount_point_where_another_device_is_mounted_is_left_alone(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper], tmp_path: Path
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    helper = start({"path": str(image_factory(fstype="ext4")), "mountpoint": str(place)})
    helper.kill()
    with unmounted_by_hand(helper):
        syscalls.mount("foreign", str(place), "tmpfs", 0, "")
        try:
            report = clean(base)
            assert told(report.reclaimed) == [f"remove {helper.folder}"]
            assert f"{place}: mount 1 was here; foreign is mounted here now" in reasons(report.not_ours)
            assert place.is_mount()
        finally:
            syscalls.umount2(str(place))


def test_a_pid_that_is_another_process_now_is_left_alone(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    helper = start(image_factory(fstype="ext4"))
    helper.kill()
    (record,) = records_of(helper.folder)
    add_to_journal(helper.folder, replace(record, daemon=ProcessId(os.getpid(), 1)))
    report = clean(base)
    assert report.left == []
    assert f"process {os.getpid()}" in told(report.not_ours)


def test_a_program_that_only_bears_the_daemons_name_is_left_alone(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper], tmp_path: Path
) -> None:
    helper = start(image_factory(fstype="ext4"))
    helper.kill()
    with subprocess.Popen(
        ["qemu-storage-daemon", "-c", "import sys; sys.stdin.read()"],
        executable=sys.executable,
        stdin=subprocess.PIPE,
        cwd=tmp_path,
    ) as other:
        report = clean(base)
        assert other.poll() is None
        assert not any("qemu" in what for what in told(report.reclaimed))
        other.communicate()


@pytest.mark.parametrize("kind", ["nonsense", "huge"])
def test_a_line_of_a_journal_that_no_helper_wrote_is_left_and_told(
    kind: str, base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    helper = start(image_factory(fstype="ext4"))
    helper.kill()
    journal = helper.folder / "journal"
    known = journal.stat().st_size
    with journal.open("a") as file:
        file.write(("x" * 2_000_000 if kind == "huge" else '{"version": 1, "token": "x"}') + "\n")
    report = clean(base)
    assert f"unmount {helper.roots[0]}" in told(report.reclaimed)
    assert f"{journal}, line 3: this is no record of ours" in reasons(report.left)
    assert records_of(helper.folder) == []
    os.truncate(journal, known)
    assert told(clean(base).reclaimed) == [f"remove {helper.folder}"]


def test_a_file_beside_the_journal_that_no_helper_wrote_is_left_and_told(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    helper = start(image_factory(fstype="ext4"))
    helper.kill()
    strange = helper.folder / "journal.2"
    strange.symlink_to("/etc/passwd")
    report = clean(base)
    assert f"unmount {helper.roots[0]}" in told(report.reclaimed)
    assert str(strange) in reasons(report.left)
    assert os.path.lexists(strange)
    strange.unlink()
    assert told(clean(base).reclaimed) == [f"remove {helper.folder}"]


def test_a_folder_that_a_user_forged_leads_to_nothing(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    live = start(image_factory(fstype="ext4"))
    forged = live.folder.parent / "1-00000000"
    forged.mkdir()
    for name in ("alive", "journal"):
        (forged / name).write_text((live.folder / name).read_text())
    for path in (forged, *forged.rglob("*")):
        os.chown(path, 54321, -1)
    try:
        report = clean(base)
        assert report.reclaimed == []
        assert "it belongs to user 54321: no helper made it" in reasons(report.left)
        assert live.roots[0].is_mount()
    finally:
        for path in forged.iterdir():
            path.unlink()
        forged.rmdir()
    live.end()


def test_a_dead_folder_that_its_user_renamed_is_reclaimed_by_its_own_token(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    disk = image_factory(fstype="ext4")
    live, dead = start(disk), start(disk)
    dead.kill()
    # Not over the live one's: the kernel lets nobody replace a folder that is not empty.
    renamed = dead.folder.rename(dead.folder.with_name("1-00000000"))
    report = clean(base)
    assert report.left == []
    assert f"unmount {renamed}/{dead.roots[0].name}" in told(report.reclaimed)
    assert live.roots[0].is_mount()
    live.end()


def test_a_busy_mount_is_left_with_its_record_and_reclaimed_later(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    helper = start(image_factory(fstype="ext4", content={"f": "x"}))
    helper.kill()
    with (helper.roots[0] / "f").open():
        report = reclaim(base, dry_run=False)
        assert f"pid {os.getpid()}" in reasons(report.left)
        assert [record.number for record in records_of(helper.folder)] == [1]
        assert helper.roots[0].is_mount()
    assert clean(base).left == []


def test_two_reclaimers_at_once_do_each_thing_once(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper]
) -> None:
    disk = image_factory(fstype="ext4")
    helpers = [start(disk) for _ in range(4)]
    for helper in helpers:
        helper.kill()
    code = """
import json, sys
from pathlib import Path
from pytest_imagemount.engine import folders
folders.base_folder = lambda: Path(sys.argv[1])
from pytest_imagemount.helper.reclaim import reclaim
sys.stdin.read()
print(json.dumps(reclaim(Path(sys.argv[1]), dry_run=False).to_wire()))
"""
    others = [
        subprocess.Popen([sys.executable, "-c", code, base], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in others:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    outputs = [json.loads(process.communicate()[0]) for process in others]
    done = [item["what"] for output in outputs for item in output["reclaimed"]]
    assert [output["left"] for output in outputs] == [[], []]
    assert len(done) == len(set(done))
    assert {f"remove {helper.folder}" for helper in helpers} <= set(done)
    assert state(base) == set()


def test_sockets_and_unfinished_folders_of_dead_processes_are_swept(base: Path, start: Callable[..., Helper]) -> None:
    user = folders.served_folder(0)
    with subprocess.Popen(["true"]) as process:
        process.wait()
    dead = process.pid
    for pid in (dead, os.getpid()):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(user / f"client-{pid}-1"))
    (user / f".new-{dead}-00000000").mkdir()
    reclaim(base, dry_run=True)
    assert len(list(user.iterdir())) == 3
    assert reclaim(base, dry_run=False).left == []
    assert [path.name for path in user.iterdir()] == [f"client-{os.getpid()}-1"]
    (user / f"client-{os.getpid()}-1").unlink()


def run_cli(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = cli.main(arguments)
    return status, capsys.readouterr().out


def test_ps_shows_live_and_dead_and_clean_leaves_the_live(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper], capsys: pytest.CaptureFixture[str]
) -> None:
    disk = image_factory(fstype="ext4", name="shown.raw")
    assert run_cli("ps", capsys=capsys) == (0, "Nothing is mounted.\n")
    assert run_cli("clean", capsys=capsys) == (0, "Nothing to clean.\n")
    live, dead = start(disk), start(disk)
    dead.kill()
    _, text = run_cli("ps", capsys=capsys)
    for part in (f"process {os.getpid()}, worker gw7", "live", "dead", "shown.raw", "raw ro", *live.devices):
        assert part in text
    assert str(dead.roots[0]) in text
    assert "2 images: 1 live, 1 dead\nTake down what the dead ones left: imagemount clean" in text
    listed = json.loads(run_cli("ps", "--json", capsys=capsys)[1])
    assert [(entry["state"], entry["helper"]["pid"]) for entry in listed["mounts"]] == [
        ("live", live.process.pid),
        ("dead", dead.process.pid),
    ]
    (first, _) = listed["mounts"]
    assert (first["pid"], first["worker"], first["test"]) == (os.getpid(), "gw7", "test_1")
    assert abs(first["started"] - Path(f"/proc/{os.getpid()}").stat().st_ctime) < 30
    assert abs(first["since"] - time.time()) < 60
    assert (first["image"], first["mountpoint"]) == (str(disk), str(live.roots[0]))
    planned = json.loads(run_cli("clean", "--dry-run", "--json", capsys=capsys)[1])
    assert dead.roots[0].is_mount()
    status, text = run_cli("clean", "--json", capsys=capsys)
    assert status == 0
    assert {**json.loads(text), "dry_run": True} == planned
    assert json.loads(run_cli("ps", "--json", capsys=capsys)[1])["mounts"][0]["helper"]["pid"] == live.process.pid
    assert live.roots[0].is_mount()
    live.end()


def test_clean_ends_with_1_when_something_is_left(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper], capsys: pytest.CaptureFixture[str]
) -> None:
    helper = start(image_factory(fstype="ext4"))
    helper.kill()
    strange = helper.folder / "strange"
    strange.touch()
    status, text = run_cli("clean", capsys=capsys)
    assert status == 1
    assert f"{strange}: no helper makes such a thing here" in text
    assert text.endswith("2 steps done, 1 left.\n")
    strange.unlink()
    assert run_cli("clean", capsys=capsys)[0] == 0


def test_renaming_its_folder_diverts_no_mount_of_a_live_helper(
    base: Path, image_factory: ImageBuilder, start: Callable[..., Helper], tmp_path: Path
) -> None:
    helper = start(image_factory(fstype="ext4"))
    helper.folder.rename(helper.folder.with_name("renamed"))
    helper.folder.symlink_to(tmp_path)
    helper.end()  # unmounts by its descriptor
    helper.folder.unlink()
    assert state(base) == set()


@pytest.fixture
def in_process(base: Path) -> Iterator[Callable[..., Mounts]]:
    """The helper's mounts, held by this process."""
    workspace = Workspace()
    mounts = Mounts(workspace, Owner(os.getpid()))

    def open_all(*images: Path) -> Mounts:
        for number, image in enumerate(images, 1):
            request = Open(number, image.name, str(image), test="test")
            mounts.open(request, [os.open(image, os.O_RDONLY)])
        return mounts

    yield open_all
    assert mounts.close(also_kept=True) == []
    workspace.close()


def roots_in(base: Path) -> list[Path]:
    return [entry.target for entry in mounts() if base in entry.target.parents]


def test_everything_busy_is_given_up_within_one_deadline_and_undone_later(
    base: Path, image_factory: ImageBuilder, in_process: Callable[..., Mounts]
) -> None:
    disk = image_factory(fstype="ext4", content={"f": "x"})
    held = in_process(*[disk] * 8)
    with ExitStack() as files:
        for root in roots_in(base):
            files.enter_context((root / "f").open())
        begin = time.monotonic()
        failures = held.close()
        assert time.monotonic() - begin < 7, "one by one it is more than a second for each"
        assert sum(f"pid {os.getpid()}" in failure for failure in failures) == 8
        assert len(roots_in(base)) == 8
    assert held.close() == []
    assert roots_in(base) == []


def test_one_busy_mount_costs_a_second_and_its_image_can_still_be_read(
    base: Path, image_factory: ImageBuilder, in_process: Callable[..., Mounts]
) -> None:
    held = in_process(image_factory(fstype="ext4", content={"f": "x", "g": "still here"}))
    with (roots_in(base)[0] / "f").open():
        begin = time.monotonic()
        with pytest.raises(TeardownError, match="it is busy; held by"):
            held.release(1)
        assert time.monotonic() - begin < 3
        assert (roots_in(base)[0] / "g").read_text() == "still here"


@pytest.mark.needs("fuse", "qemu", "qemu-img")
def test_a_busy_mount_keeps_the_export_that_it_stands_on(
    base: Path, image_factory: ImageBuilder, in_process: Callable[..., Mounts]
) -> None:
    held = in_process(image_factory(fstype="ext4", format="qcow2", content={"f": "x", "g": "still here"}))
    (root,) = [root for root in roots_in(base) if root.name.startswith("mount-")]
    with (root / "f").open():
        with pytest.raises(TeardownError):
            held.release(1)
        Path("/proc/sys/vm/drop_caches").write_text("3")
        assert (root / "g").read_text() == "still here"
    held.release(1)
    assert roots_in(base) == []


def test_a_helper_that_lingers_undoes_what_becomes_free(
    base: Path, image_factory: ImageBuilder, in_process: Callable[..., Mounts]
) -> None:
    held = in_process(image_factory(fstype="ext4", content={"f": "x"}))
    with subprocess.Popen(["sleep", "600"], cwd=roots_in(base)[0]) as busy:
        threading.Timer(1.2, busy.kill).start()
        begin = time.monotonic()
        assert linger(held) == []
        assert 1.0 < time.monotonic() - begin < 5
    assert roots_in(base) == []


def test_a_helper_that_lingers_gives_up_in_the_end(
    base: Path, image_factory: ImageBuilder, in_process: Callable[..., Mounts]
) -> None:
    held = in_process(image_factory(fstype="ext4", content={"f": "x"}))
    with (roots_in(base)[0] / "f").open():
        begin = time.monotonic()
        assert any("is busy" in line for line in linger(held, 0.5))
        assert time.monotonic() - begin < 4


def test_a_kept_mount_outlives_the_others_until_it_is_unmounted_by_hand(
    base: Path, image_factory: ImageBuilder, in_process: Callable[..., Mounts]
) -> None:
    disk = image_factory(fstype="ext4")
    held = in_process(disk, disk)
    held.keep(1)
    assert held.close() == []
    (root,) = roots_in(base)
    assert [one.state for one in processes.list_held(0).held] == ["kept"]
    threading.Timer(0.3, syscalls.umount2, [str(root)]).start()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wait_for_end_of_kept(held, ours)
    assert not held.kept
    assert held.close() == []


def test_a_kept_mount_is_undone_when_its_helper_is_told_to_end(
    base: Path, image_factory: ImageBuilder, in_process: Callable[..., Mounts]
) -> None:
    held = in_process(image_factory(fstype="ext4"))
    held.keep(1)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"!")
        wait_for_end_of_kept(held, ours)
    assert held.kept
    assert held.close(also_kept=True) == []
    assert roots_in(base) == []


def test_the_root_of_a_mount_is_opened_and_of_nothing_else(
    base: Path, image_factory: ImageBuilder, in_process: Callable[..., Mounts]
) -> None:
    held = in_process(image_factory(fstype="ext4", content={"f": "inside"}))
    fd = held.root_of(1)
    assert os.listdir(f"/proc/self/fd/{fd}") == os.listdir(roots_in(base)[0])  # noqa: PTH208
    os.close(fd)
    with pytest.raises(RequestInvalid, match="nothing is held"):
        held.root_of(2)
    syscalls.umount2(str(roots_in(base)[0]))
    with pytest.raises(OSError, match="not mounted here any more"):
        held.root_of(1)


def test_the_helper_of_a_run_is_killed_and_the_next_run_reclaims(image_factory: ImageBuilder) -> None:
    disk = image_factory(fstype="ext4")
    code = """
import os, signal, sys
from pytest_imagemount import mount_image
from pytest_imagemount.client import current_client
from pytest_imagemount.config import Settings
image = mount_image(sys.argv[1]).__enter__()
print(image.root, flush=True)
if sys.argv[2] == "die":
    os.kill(current_client(Settings()).helper_pid, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    roots = []
    for how in ("die", "live"):
        done = subprocess.run([sys.executable, "-c", code, disk, how], stdout=subprocess.PIPE, text=True, check=False)
        roots.append(Path(done.stdout.strip()))
    assert not any(root.parent.exists() for root in roots)
