"""Reclaiming and listing, as far as they need no privilege: plans, reports, deadlines, what is shown."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_imagemount import cleaning, processes
from pytest_imagemount.engine import folders
from pytest_imagemount.engine.held_folder import HeldFolder, take_over
from pytest_imagemount.engine.mountinfo import MountEntry
from pytest_imagemount.engine.processes import ProcessId
from pytest_imagemount.engine.undo import UndoStack, deadline, patience, wait_until
from pytest_imagemount.errors import CapabilityMissing, RequestInvalid
from pytest_imagemount.helper import plan as plan_module
from pytest_imagemount.helper import reclaim as reclaim_module
from pytest_imagemount.helper.descriptors import require_image, require_mountpoint
from pytest_imagemount.helper.folder_contents import remove_contents, strangers_in
from pytest_imagemount.helper.journal import Journal
from pytest_imagemount.helper.leftovers import OurDevice
from pytest_imagemount.helper.plan import make_plan
from pytest_imagemount.helper.reclaim import reclaim
from pytest_imagemount.helper.record import Record
from pytest_imagemount.helper.report import Item, Report
from pytest_imagemount.processes import Held, Listing, list_held
from pytest_imagemount.terminal import Style

US = ProcessId.of(os.getpid())
PLAIN = Style(colour=False, unicode=True)
NOON = 1_795_435_200.0


def record(folder: HeldFolder, number: int = 1) -> Record:
    return Record(
        token=folder.token,
        number=number,
        helper=US,
        owner=US,
        worker="gw1",
        test="tests/test_a.py::test_b",
        image="/images/disk.qcow2",
        partition=2,
        mode="ro",
        since=NOON - 125,
        format="qcow2",
        backend="nbd",
        device="/dev/nbd0",
        mountpoint="/run/x/mount-1",
    )


def abandon(folder: HeldFolder) -> None:
    """As the kernel does at its process's death: the lock is free."""
    folder.release()


def test_a_folder_with_nothing_in_the_kernel_is_removed_with_its_records(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path)
    Journal(held.fd).write(record(held))
    for name in ("mount-1", "export-2"):
        (held.call / name).mkdir() if name.startswith("mount") else (held.call / name).touch()
    path = held.path
    abandon(held)
    dry = reclaim(tmp_path, dry_run=True)
    assert [str(item) for item in dry.reclaimed] == [f"remove {path}"]
    assert path.is_dir()
    done = reclaim(tmp_path, dry_run=False)
    assert (done.reclaimed, done.left, done.not_ours) == (dry.reclaimed, [], [])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_locks_that_cannot_be_used_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that another user has made in /run/lock, where everybody may."""

    def taken() -> Path:
        raise CapabilityMissing(capability="run folder", reason="it is not a folder of this user's own", hint="")

    monkeypatch.setattr("pytest_imagemount.engine.nbd.pool.lock_folder", taken)
    abandon(HeldFolder(tmp_path))
    report = reclaim(tmp_path, dry_run=False)
    assert len(report.reclaimed) == 1
    assert not list(tmp_path.iterdir())


def test_the_folder_of_a_live_process_is_passed_over(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path)
    Journal(held.fd).write(record(held))
    report = reclaim(tmp_path, dry_run=False)
    assert (report.reclaimed, report.left, report.not_ours) == ([], [], [])
    assert (held.path / "journal").exists()


def test_what_no_helper_makes_is_told_and_keeps_the_folder(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path)
    path = held.path
    (path / "mount-1").touch()  # a file in the place of a mount point
    (path / "export-1").symlink_to("/etc/passwd")
    (path / "notes").mkdir()
    abandon(held)
    report = reclaim(tmp_path, dry_run=False)
    assert [item.what for item in report.left] == [f"{path}/{name}" for name in ("export-1", "mount-1", "notes")]
    assert report.reclaimed == []
    assert len(list(path.iterdir())) == 4


def test_the_contents_of_a_mount_point_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "mount-1").mkdir()
    (tmp_path / "mount-1/file").touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    assert strangers_in(fd) == []
    with pytest.raises(OSError, match="not empty"):
        remove_contents(fd)
    os.close(fd)
    assert (tmp_path / "mount-1/file").exists()


def test_a_plan_changes_nothing(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path)
    Journal(held.fd).write(record(held))
    token = held.token
    abandon(held)
    before = sorted(tmp_path.rglob("*"))
    parent = os.open(tmp_path, os.O_RDONLY)
    folder = take_over(token, parent)
    plan = make_plan(folder)
    assert [step.what for step in plan.steps] == [f"remove {tmp_path / token}"]
    assert plan.records == (record(held),)
    assert sorted(tmp_path.rglob("*")) == before
    folder.close()
    os.close(parent)


def test_a_report_travels() -> None:
    report = Report(False, [Item("unmount /a", "/f")], [Item("detach /dev/loop1", "/f", "in use")], [])
    assert Report.from_wire(json.loads(json.dumps(report.to_wire()))) == report


def test_a_report_is_told_in_marks_and_a_sum() -> None:
    report = Report(False, [Item("unmount /a", "/f")], [Item("detach /dev/loop1", "/f", "in use")])
    assert cleaning.render(report, PLAIN).splitlines() == [
        "✓ unmount /a",
        "✗ detach /dev/loop1: in use",
        "1 step done, 1 left.",
    ]
    assert cleaning.render(Report(True, report.reclaimed), PLAIN).endswith("1 step would be done.")
    other = cleaning.render(Report(False, not_ours=[Item("/dev/loop1", "/f", "somebody else has it now")]), PLAIN)
    assert other.splitlines()[-1] == "Nothing to clean."
    assert "not ours any more, left alone: /dev/loop1: somebody else has it now" in other


def test_steps_of_a_close_share_one_deadline() -> None:
    undo = UndoStack()
    for number in range(20):
        undo.push(f"step {number}", lambda: wait_until(lambda: False, 5) or (_ for _ in ()).throw(OSError("busy")))
    start = time.monotonic()
    with deadline(start + 0.2):
        assert len(undo.run()) == 20
    assert 0.2 <= time.monotonic() - start < 1.5


def test_a_deadline_inside_another_can_only_be_earlier() -> None:
    now = time.monotonic()
    assert patience(5) == 5
    with deadline(now + 1):
        assert 0.5 < patience(5) <= 1
        with deadline(now + 100):
            assert patience(5) <= 1
        with deadline(now - 1):
            assert 0 < patience(5) < 0.1
    assert patience(5) == 5


def test_a_condition_is_asked_once_even_when_the_time_is_up() -> None:
    with deadline(time.monotonic() - 1):
        assert wait_until(lambda: True, 5)


def test_a_helper_whose_pid_says_nothing_here_lives_while_it_has_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "base_folder", lambda: tmp_path)
    user = tmp_path / str(os.geteuid())
    user.mkdir()
    held = HeldFolder(user)
    elsewhere = ProcessId(US.pid, US.start + 1)
    Journal(held.fd).write(replace(record(held), helper=elsewhere, owner=elsewhere))
    assert [one.state for one in list_held(os.geteuid()).held] == ["live"]
    abandon(held)
    assert [one.state for one in list_held(os.geteuid()).held] == ["dead"]


def test_a_folder_in_the_making_is_left_to_a_process_of_another_pid_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim_module, "start_time", lambda pid: None)
    held = HeldFolder(tmp_path)
    unfinished = held.path.rename(tmp_path / f".new-{held.token}")
    reclaim(tmp_path, dry_run=False)
    assert [entry.name for entry in unfinished.iterdir()] == ["alive"]
    abandon(held)
    reclaim(tmp_path, dry_run=False)
    assert list(tmp_path.iterdir()) == []


def test_a_listing_is_grouped_by_process_and_says_what_to_do(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path)
    first = record(held)
    second = replace(first, number=2, since=NOON - 7300, image="/images/\x1b[31mred.raw", mountpoint="")
    dead = replace(first, owner=ProcessId(1 << 22, 5), helper=ProcessId(1 << 22, 6), worker="", since=NOON - 3)
    listing = Listing(
        (Held(second, "live", held.path), Held(first, "live", held.path), Held(dead, "dead", held.path)), ("odd",)
    )
    lines = processes.render(listing, PLAIN, NOON).splitlines()
    assert lines[0].startswith(f"✓ process {os.getpid()}, worker gw1  live  started ")
    assert lines[1:6] == [
        "    \\x1b[31mred.raw, partition 2  qcow2 ro  /dev/nbd0  2 h",
        "      for tests/test_a.py::test_b",
        "    disk.qcow2, partition 2       qcow2 ro  /dev/nbd0  2 min",
        "      for tests/test_a.py::test_b",
        "      at  /run/x/mount-1",
    ]
    assert lines[7].startswith(f"✗ process {1 << 22}  dead")
    assert "left alone: odd" in lines
    assert lines[-2] == "3 images: 2 live, 1 dead"
    assert "imagemount clean" in lines[-1]
    held.remove()


def test_a_listing_as_json_has_its_keys(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path)
    value = processes.to_json(Listing((Held(record(held), "live", held.path),)), NOON)
    assert json.loads(json.dumps(value)) == {
        "mounts": [
            {
                "state": "live",
                "pid": os.getpid(),
                "started": US.started,
                "helper": {"pid": os.getpid(), "started": US.started},
                "worker": "gw1",
                "test": "tests/test_a.py::test_b",
                "image": "/images/disk.qcow2",
                "format": "qcow2",
                "partition": 2,
                "mode": "ro",
                "backend": "nbd",
                "device": "/dev/nbd0",
                "mountpoint": "/run/x/mount-1",
                "since": NOON - 125,
                "age": 125.0,
                "folder": str(tmp_path / held.token),
            }
        ],
        "strange": [],
    }
    held.remove()


def test_a_process_says_when_it_started() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert abs(ProcessId.of(process.pid).started - time.time()) < 5
        process.kill()


@pytest.mark.parametrize("flags", [os.O_PATH, os.O_WRONLY])
def test_an_image_that_its_user_did_not_open_for_reading_is_refused(tmp_path: Path, flags: int) -> None:
    (tmp_path / "disk").touch()
    fd = os.open(tmp_path / "disk", flags)
    with pytest.raises(RequestInvalid, match="not open for reading"):
        require_image(fd, "disk", "ro")
    os.close(fd)


def test_writing_takes_a_descriptor_that_may_write(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    reading, both = os.open(tmp_path / "disk", os.O_RDONLY), os.open(tmp_path / "disk", os.O_RDWR)
    for mode in ("ro", "overlay"):
        require_image(reading, "disk", mode)
    require_image(both, "disk", "rw")
    with pytest.raises(RequestInvalid, match="for reading only, and mode 'rw' writes"):
        require_image(reading, "disk", "rw")
    os.close(reading)
    os.close(both)


def test_a_mount_point_is_an_empty_folder_of_the_callers_own(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    owner = place.stat().st_uid
    fd = os.open(place, os.O_RDONLY)
    assert require_mountpoint(fd, owner).path == place
    assert require_mountpoint(fd, 0).path == place
    with pytest.raises(RequestInvalid, match="belongs to another user"):
        require_mountpoint(fd, owner + 1)
    (place / "file").touch()
    with pytest.raises(RequestInvalid, match="not empty"):
        require_mountpoint(fd, owner)
    os.close(fd)
    fd = os.open(place / "file", os.O_RDONLY)
    with pytest.raises(RequestInvalid, match="not of a folder"):
        require_mountpoint(fd, owner)
    os.close(fd)


def test_a_place_that_a_device_of_ours_is_mounted_at_is_not_called_foreign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = HeldFolder(tmp_path)
    Journal(held.fd).write(record(held))  # of mount 1, whose place mount 2 has by now
    token = held.token
    abandon(held)
    entry = MountEntry(7, "7:3", Path("/run/x/mount-1"), "ext4", "/dev/loop3", frozenset())
    monkeypatch.setattr(plan_module, "mounts", lambda: [entry])
    monkeypatch.setattr(plan_module, "disk_of", lambda _: "loop3")
    monkeypatch.setattr(plan_module, "devices_of", lambda *_: [OurDevice("loop3", 2, "41")])
    parent = os.open(tmp_path, os.O_RDONLY)
    folder = take_over(token, parent)
    plan = make_plan(folder)
    assert [what for what, _ in plan.left] == ["/dev/loop3 at /run/x/mount-1", "detach /dev/loop3"]
    assert plan.not_ours == []
    folder.close()
    os.close(parent)
