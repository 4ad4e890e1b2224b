"""Leases of NBD devices: the lock says who may, a fake /sys says what the kernel thinks."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine import folders
from pytest_imagemount.engine.nbd.pool import Busy, Holder, Lease, NbdPool, lock_folder
from pytest_imagemount.engine.nbd.state import NbdState, kernel_state, module_loaded
from pytest_imagemount.errors import CapabilityMissing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

US = Holder(os.getpid(), "gw0", "test_a.py::test_a", "disk.qcow2")

HOLD = """
import sys
from pathlib import Path
from pytest_imagemount.engine.nbd.pool import Holder, NbdPool
lease = NbdPool(Path(sys.argv[1]), 1, sys_root=Path(sys.argv[2])).try_lease(Holder(77, "gw3", "test_b", "b.qcow2", 0))
print(lease.index, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sys_root(tmp_path: Path) -> Path:
    """A /sys with four idle devices."""
    root = tmp_path / "sys"
    for index in range(4):
        (root / f"block/nbd{index}").mkdir(parents=True)
        (root / f"block/nbd{index}/size").write_text("0\n")
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "locks"
    path.mkdir()
    return path


def connect(sys_root: Path, index: int, pid: int, backend: str = "") -> None:
    device = sys_root / f"block/nbd{index}"
    (device / "pid").write_text(f"{pid}\n")
    (device / "size").write_text("2048\n")
    if backend:
        (device / "backend").write_text(f"{backend}\n")


def leased(result: Lease | Busy) -> Lease:
    assert isinstance(result, Lease), result
    return result


def busy(result: Lease | Busy) -> tuple[str, ...]:
    assert isinstance(result, Busy), f"leased nbd{result.index}"
    return result.holders


@contextmanager
def another_process_holds(folder: Path, sys_root: Path) -> Iterator[subprocess.Popen[str]]:
    """nbd0 is leased by a process that waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(sys_root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"
        try:
            yield process
        finally:
            process.kill()


def test_leases_come_in_turn_from_the_start_index(folder: Path, sys_root: Path) -> None:
    pool = NbdPool(folder, 3, start=2, sys_root=sys_root)
    leases = [leased(pool.try_lease(US)) for _ in range(3)]
    assert [lease.index for lease in leases] == [2, 0, 1]
    assert len(busy(pool.try_lease(US))) == 3
    for lease in leases:
        lease.release()


def test_a_holders_words_are_fit_for_a_terminal(folder: Path, sys_root: Path) -> None:
    lease = leased(NbdPool(folder, 1, sys_root=sys_root).try_lease(Holder(7, test="\x1b[2J", image="a\nb")))
    (line,) = busy(NbdPool(folder, 1, sys_root=sys_root).try_lease(US))
    assert r"pid 7, \x1b[2J, a\nb" in line
    lease.release()


def test_a_start_index_beyond_the_pool_wraps(folder: Path, sys_root: Path) -> None:
    lease = leased(NbdPool(folder, 3, start=7, sys_root=sys_root).try_lease(US))
    assert lease.index == 1
    lease.release()


def test_two_pools_in_one_process_exclude_each_other(folder: Path, sys_root: Path) -> None:
    lease = leased(NbdPool(folder, 1, sys_root=sys_root).try_lease(US))
    busy(NbdPool(folder, 1, sys_root=sys_root).try_lease(US))
    lease.release()
    leased(NbdPool(folder, 1, sys_root=sys_root).try_lease(US)).release()


def test_a_busy_answer_says_who_holds_what(folder: Path, sys_root: Path) -> None:
    with another_process_holds(folder, sys_root):
        (line,) = busy(NbdPool(folder, 1, sys_root=sys_root).try_lease(US))
    assert re.fullmatch(r"nbd0: pid 77, gw3, test_b, b.qcow2, for \d+ s", line)


def test_the_lock_is_free_after_its_holder_is_killed(folder: Path, sys_root: Path) -> None:
    pool = NbdPool(folder, 1, sys_root=sys_root)
    with another_process_holds(folder, sys_root) as process:
        busy(pool.try_lease(US))
        process.send_signal(signal.SIGKILL)
        process.wait()
        lease = leased(pool.try_lease(US))
    assert json.loads((folder / "nbd0.json").read_text())["pid"] == os.getpid()
    lease.release()


def test_the_note_says_who_holds_it_and_goes_with_the_lease(folder: Path, sys_root: Path) -> None:
    lease = leased(NbdPool(folder, 1, sys_root=sys_root).try_lease(US))
    note = json.loads((folder / "nbd0.json").read_text())
    assert note == {
        "pid": os.getpid(),
        "worker": "gw0",
        "test": "test_a.py::test_a",
        "image": "disk.qcow2",
        "since": US.since,
        "tag": "",
    }
    lease.release()
    assert {path.name for path in folder.iterdir()} == {"line", "nbd0.lock"}


def test_the_lock_file_survives_and_stays_empty(folder: Path, sys_root: Path) -> None:
    pool = NbdPool(folder, 1, sys_root=sys_root)
    inodes = set()
    for _ in range(3):
        lease = leased(pool.try_lease(US))
        inodes.add((folder / "nbd0.lock").stat().st_ino)
        lease.release()
        inodes.add((folder / "nbd0.lock").stat().st_ino)
    assert len(inodes) == 1
    assert (folder / "nbd0.lock").stat().st_size == 0


def test_releasing_twice_does_not_free_the_next_holders_device(folder: Path, sys_root: Path) -> None:
    pool = NbdPool(folder, 1, sys_root=sys_root)
    first = leased(pool.try_lease(US))
    first.release()
    second = leased(pool.try_lease(US))
    first.release()
    assert (folder / "nbd0.json").exists()
    busy(pool.try_lease(US))
    second.release()


def test_a_device_that_the_kernel_says_is_connected_is_passed_over(folder: Path, sys_root: Path) -> None:
    connect(sys_root, 0, 4711)
    connect(sys_root, 1, 4712, "pytest-imagemount:4712:1")
    (sys_root / "block/nbd2/size").write_text("8\n")
    pool = NbdPool(folder, 4, sys_root=sys_root)
    lease = leased(pool.try_lease(US))
    assert lease.index == 3
    lease.release()
    assert busy(NbdPool(folder, 3, sys_root=sys_root).try_lease(US)) == (
        "nbd0: connected by process 4711, which is none of ours",
        "nbd1: left connected by process 4712, which is gone: run `imagemount clean`",
        "nbd2: busy, though nobody has connected it",
    )


def test_a_device_that_was_passed_over_stays_free_for_others(folder: Path, sys_root: Path) -> None:
    connect(sys_root, 0, 4711)
    busy(NbdPool(folder, 1, sys_root=sys_root).try_lease(US))
    (sys_root / "block/nbd0/pid").unlink()
    (sys_root / "block/nbd0/size").write_text("0\n")
    leased(NbdPool(folder, 1, sys_root=sys_root).try_lease(US)).release()


def test_an_index_that_the_kernel_has_refused_is_skipped(folder: Path, sys_root: Path) -> None:
    pool = NbdPool(folder, 2, sys_root=sys_root)
    lease = leased(pool.try_lease(US, skip={0}))
    assert lease.index == 1
    lease.release()
    assert busy(pool.try_lease(US, skip={0, 1}))[0] == "nbd0: just taken by another program"


def test_a_device_that_the_module_has_not_made_yet_can_be_leased(folder: Path, sys_root: Path) -> None:
    lease = leased(NbdPool(folder, 9, start=8, sys_root=sys_root).try_lease(US))
    assert lease.index == 8
    lease.release()


@pytest.mark.parametrize("note", [None, "", "{", "[1]", '{"pid": 1, "more": 2}'])
def test_a_holder_without_a_readable_note_is_told_as_such(folder: Path, sys_root: Path, note: str | None) -> None:
    with another_process_holds(folder, sys_root):
        if note is None:
            (folder / "nbd0.json").unlink()
        else:
            (folder / "nbd0.json").write_text(note)
        assert busy(NbdPool(folder, 1, sys_root=sys_root).try_lease(US)) == ("nbd0: a process that left no note",)


def test_a_lock_is_given_back_when_its_note_cannot_be_written(
    folder: Path, sys_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = NbdPool(folder, 1, sys_root=sys_root)

    def full(index: int, holder: Holder) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pool, "_write_note", full)
        with pytest.raises(OSError, match="No space"):
            pool.try_lease(US)
    leased(pool.try_lease(US)).release()


def test_a_file_system_without_flock_is_an_error_and_never_a_soft_lock(
    folder: Path, sys_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError) as caught:
        NbdPool(folder, 1, sys_root=sys_root).try_lease(US)
    assert caught.value.errno == errno.ENOSYS


def test_filelock_is_not_imported_before_the_first_lease() -> None:
    code = "import sys, pytest_imagemount.engine.nbd.pool; sys.exit('filelock' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_state_of_a_device_is_read_from_sysfs(sys_root: Path) -> None:
    connect(sys_root, 1, 4711, "pytest-imagemount:4711:3")
    assert kernel_state(0, sys_root) == NbdState(exists=True)
    assert kernel_state(0, sys_root).idle
    assert kernel_state(1, sys_root) == NbdState(True, 4711, "pytest-imagemount:4711:3", 2048)
    assert not kernel_state(1, sys_root).idle
    assert kernel_state(9, sys_root) == NbdState(exists=False)
    assert kernel_state(9, sys_root).idle


def test_a_driver_is_loaded_when_its_module_or_its_first_device_is_there(sys_root: Path, tmp_path: Path) -> None:
    assert module_loaded(sys_root)
    assert not module_loaded(tmp_path)
    (tmp_path / "module/nbd").mkdir(parents=True)
    assert module_loaded(tmp_path)


@pytest.fixture
def unprivileged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The choice of folders as an ordinary user with a runtime folder sees it."""
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid or 1000)
    if tmp_path.stat().st_uid == 0:
        os.chown(tmp_path, 1000, 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_the_lock_folder_of_a_user_is_his_own(unprivileged: Path) -> None:
    made = unprivileged / "pytest-imagemount-lock"
    made.mkdir(mode=0o700)
    os.chown(made, unprivileged.stat().st_uid, -1)
    assert lock_folder() == made


def test_a_lock_folder_that_others_may_write_in_is_refused(unprivileged: Path) -> None:
    made = unprivileged / "pytest-imagemount-lock"
    made.mkdir()
    os.chown(made, unprivileged.stat().st_uid, -1)
    made.chmod(0o777)
    with pytest.raises(CapabilityMissing, match="others may write in it"):
        lock_folder()


def test_a_lock_folder_that_is_a_link_is_refused(unprivileged: Path) -> None:
    (unprivileged / "elsewhere").mkdir()
    (unprivileged / "pytest-imagemount-lock").symlink_to("elsewhere")
    with pytest.raises(CapabilityMissing, match="not a folder of this user's own"):
        lock_folder()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder to somebody else")
def test_a_lock_folder_of_somebody_else_is_refused(unprivileged: Path) -> None:
    made = unprivileged / "pytest-imagemount-lock"
    made.mkdir(mode=0o700)
    os.chown(made, 2000, -1)
    with pytest.raises(CapabilityMissing, match="not a folder of this user's own"):
        lock_folder()


def test_pool_and_folders_agree_on_the_lock_folder() -> None:
    assert lock_folder is folders.lock_folder


def test_who_came_first_is_served_first(sys_root: Path, tmp_path: Path) -> None:
    pool = NbdPool(tmp_path, 1, sys_root=sys_root)
    held = pool.try_lease(Holder(1, test="holds it"))
    assert isinstance(held, Lease)
    first, second = (Holder(1, test=name, tag=name) for name in ("first", "second"))
    assert isinstance(pool.try_lease(first), Busy)
    assert isinstance(pool.try_lease(second), Busy)
    held.release()
    late = pool.try_lease(Holder(1, test="late"))
    assert isinstance(late, Busy)
    assert late.ahead == 2
    assert isinstance(pool.try_lease(second), Busy)
    lease = pool.try_lease(first)
    assert isinstance(lease, Lease)
    lease.release()
    lease = pool.try_lease(second)
    assert isinstance(lease, Lease)
    lease.release()


def test_who_gives_up_does_not_hold_up_the_others(sys_root: Path, tmp_path: Path) -> None:
    pool = NbdPool(tmp_path, 1, sys_root=sys_root)
    held = pool.try_lease(Holder(1))
    assert isinstance(held, Lease)
    assert isinstance(pool.try_lease(Holder(1, tag="first")), Busy)
    assert isinstance(pool.try_lease(Holder(1, tag="second")), Busy)
    held.release()
    pool.give_up("first")
    lease = pool.try_lease(Holder(1, tag="second"))
    assert isinstance(lease, Lease)
    lease.release()
