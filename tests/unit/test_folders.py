"""The folders: who may enter them, who may change them, and what a descriptor protects from."""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine import folders
from pytest_imagemount.engine.held_folder import AliveNote, HeldFolder, NotTaken, take_over
from pytest_imagemount.engine.processes import ProcessId, start_time
from pytest_imagemount.errors import CapabilityMissing

if TYPE_CHECKING:
    from pathlib import Path

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a folder that is another user's")

HOLD = """
import sys
from pathlib import Path
from pytest_imagemount.engine.held_folder import HeldFolder
folder = HeldFolder(Path(sys.argv[1]))
print(folder.token, flush=True)
sys.stdin.read()
"""


def abandoned(parent: Path) -> str:
    """The token of a folder whose process was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        token = process.stdout.readline().strip()
        process.kill()
    return token


def descriptor(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "run"
    monkeypatch.setattr(folders, "base_folder", lambda: path)
    return path


@AS_ROOT
def test_a_users_folder_is_his_own_and_closed_to_others(base: Path) -> None:
    folder = folders.served_folder(54321)
    assert folder == base / "54321"
    assert (folder.stat().st_uid, stat.S_IMODE(folder.stat().st_mode)) == (54321, 0o700)
    assert (base.stat().st_uid, stat.S_IMODE(base.stat().st_mode)) == (0, 0o711)
    assert folders.served_folder(54321) == folder


@AS_ROOT
def test_roots_own_folder_is_one_of_them(base: Path) -> None:
    assert folders.run_folder() == base / "0"


@AS_ROOT
def test_the_folders_have_their_modes_under_any_umask(base: Path) -> None:
    before = os.umask(0o077)
    try:
        folders.served_folder(54321)
        held = HeldFolder(base / "54321")
    finally:
        os.umask(before)
    assert stat.S_IMODE(base.stat().st_mode) == 0o711
    assert stat.S_IMODE(held.path.stat().st_mode) == 0o755
    held.remove()


@AS_ROOT
def test_a_base_that_others_may_write_in_is_refused(base: Path) -> None:
    base.mkdir()
    base.chmod(0o777)
    with pytest.raises(CapabilityMissing, match="others may write in it"):
        folders.served_folder(0)


def test_a_held_folder_is_locked_while_its_process_lives_and_gone_after(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path)
    assert re.fullmatch(rf"{os.getpid()}-[0-9a-f]{{8}}", held.token)
    assert held.path == tmp_path / held.token
    note = AliveNote.parse((held.path / "alive").read_bytes())
    assert note == AliveNote(held.token, ProcessId(os.getpid(), start_time(os.getpid()) or 0))
    assert stat.S_IMODE((held.path / "alive").stat().st_mode) == 0o600
    with (held.path / "alive").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    held.remove()
    held.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_in_a_held_folder_is_named_and_stays(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path)
    (held.call / "mount-1").mkdir()
    with pytest.raises(OSError, match="there is still mount-1 in"):
        held.remove()
    (held.call / "mount-1").rmdir()
    held.remove()
    assert list(tmp_path.iterdir()) == []


def test_renaming_does_not_divert_a_held_folder(tmp_path: Path) -> None:
    held = HeldFolder(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / held.token).rename(tmp_path / "renamed")
    (tmp_path / held.token).symlink_to(elsewhere)
    (held.call / "mount-1").mkdir()
    assert (tmp_path / "renamed/mount-1").is_dir()
    assert list(elsewhere.iterdir()) == []
    assert held.path == tmp_path / "renamed"
    (held.call / "mount-1").rmdir()
    held.remove()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["elsewhere", held.token])


def test_the_folder_of_a_dead_process_is_taken_over_once(tmp_path: Path) -> None:
    token = abandoned(tmp_path)
    parent = descriptor(tmp_path)
    folder = take_over(token, parent)
    assert folder.note.token == token
    assert not folder.note.process.alive
    with pytest.raises(NotTaken, match="its process lives") as caught:
        take_over(token, parent)
    assert caught.value.harmless
    folder.remove()
    folder.close()
    with pytest.raises(NotTaken, match="it is gone") as caught:
        take_over(token, parent)
    assert caught.value.harmless
    os.close(parent)


def test_the_token_of_a_renamed_folder_is_the_one_it_was_made_with(tmp_path: Path) -> None:
    token = abandoned(tmp_path)
    (tmp_path / token).rename(tmp_path / "1-00000000")
    parent = descriptor(tmp_path)
    folder = take_over("1-00000000", parent)
    assert folder.note.token == token
    folder.close()
    os.close(parent)


def test_a_link_and_a_file_are_not_taken_over(tmp_path: Path) -> None:
    token = abandoned(tmp_path)
    (tmp_path / "1-00000000").symlink_to(token)
    (tmp_path / "2-00000000").write_text("x")
    parent = descriptor(tmp_path)
    for name in ("1-00000000", "2-00000000"):
        with pytest.raises(NotTaken, match="not a folder that can be opened") as caught:
            take_over(name, parent)
        assert not caught.value.harmless
    os.close(parent)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "{",
        "[]",
        json.dumps({"token": "..", "process": {"pid": 1, "start": 1}}),
        json.dumps({"token": "1-00000000"}),
    ],
)
def test_a_folder_whose_note_is_nonsense_is_not_taken_over(tmp_path: Path, note: str) -> None:
    (tmp_path / "1-00000000").mkdir()
    (tmp_path / "1-00000000/alive").write_text(note)
    parent = descriptor(tmp_path)
    with pytest.raises(NotTaken, match="is not one of ours"):
        take_over("1-00000000", parent)
    os.close(parent)


def test_a_note_that_is_a_link_or_a_pipe_or_missing_is_not_read(tmp_path: Path) -> None:
    token = abandoned(tmp_path)
    for number in (1, 2, 3):
        (tmp_path / f"{number}-00000000").mkdir()
    (tmp_path / "1-00000000/alive").symlink_to(tmp_path / token / "alive")
    os.mkfifo(tmp_path / "2-00000000/alive")
    parent = descriptor(tmp_path)
    for number in (1, 2, 3):
        with pytest.raises(NotTaken, match="its file alive"):
            take_over(f"{number}-00000000", parent)
    os.close(parent)


@AS_ROOT
def test_a_folder_that_a_user_has_forged_is_not_taken_over(tmp_path: Path) -> None:
    token = abandoned(tmp_path)
    os.chown(tmp_path / token, 54321, -1)
    parent = descriptor(tmp_path)
    with pytest.raises(NotTaken, match="it belongs to user 54321: no helper made it"):
        take_over(token, parent)
    os.chown(tmp_path / token, 0, -1)
    (tmp_path / token).chmod(0o777)
    with pytest.raises(NotTaken, match="others may write in it"):
        take_over(token, parent)
    os.close(parent)


def test_a_pid_with_another_start_is_another_process() -> None:
    us = ProcessId.of(os.getpid())
    assert us.alive
    assert not ProcessId(us.pid, us.start + 1).alive
    assert not ProcessId(us.pid, 0).alive


def test_a_zombie_is_no_process_any_more() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        known = ProcessId.of(process.pid)
        assert known.alive
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not known.alive
