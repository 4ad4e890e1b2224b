"""What is left of ours on the machine: mounts, loop devices, NBD, mappings, processes, run folders, held locks."""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import suppress
from pathlib import Path

from pytest_imagemount.engine.folders import run_folder
from pytest_imagemount.engine.loop import tag_of
from pytest_imagemount.engine.mountinfo import mounts

_HELPER = "pytest_imagemount.helper"
_PROGRAMS = ("qemu-storage-daemon", "qemu-nbd", _HELPER)


def snapshot(*, own_processes: bool = True) -> frozenset[str]:
    """One line for each thing that exists now; the difference of two snapshots is what leaked.

    What belongs to other test runs on this machine that are alive is left out; what nobody alive owns is not.

    :param own_processes: count helper processes and what they started; False leaves out those of this test process,
        whose helper lives until the end of the run
    """
    lines = [f"mount {entry.source} ({entry.fstype}) at {entry.target}" for entry in mounts()]
    lines += loops() + nbds() + mappings() + locks()
    found = processes()
    others = {pid for pid, command in found if _HELPER in command and _of_another_run(pid)}
    for pid, command in found:
        if not others.intersection([pid, *_ancestors(pid)]) and (own_processes or not _is_ours(pid)):
            lines.append(f"process {pid}: {command[:100]}")
    if own_processes:
        lines += [f"run folder {entry}" for entry in run_folder().iterdir()]
    # A helper's folder, and by it its devices, are called after its pid.
    tokens = re.compile("|".join(rf"[/:]{pid}-\w+[/:]|/{pid}-\w+$|[-_]{pid}-[0-9a-f]+-" for pid in others) or "(?!)")
    return frozenset(line for line in lines if not tokens.search(line))


def loops() -> list[str]:
    """Every attached loop device, with its backing file and its tag."""
    lines = []
    for folder in sorted(Path("/sys/block").glob("loop*/loop")):
        number = int(folder.parent.name.removeprefix("loop"))
        with suppress(OSError):  # gone between the listing and the read
            lines.append(f"loop{number} on {(folder / 'backing_file').read_text().strip()} ({tag_of(number)})")
    return lines


def nbds() -> list[str]:
    """Every connected NBD device."""
    return [f"{pid.parent.name} connected" for pid in Path("/sys/block").glob("nbd*/pid")]


def mappings() -> list[str]:
    """Every mapping of the device mapper, and every array of ours."""
    names = [f"mapping {name.read_text().strip()}" for name in Path("/sys/block").glob("dm-*/dm/name")]
    return names + [f"array {array.name}" for array in Path("/sys/block").glob("md_*")]


def locks() -> list[str]:
    """Every lock file of ours that somebody has locked."""
    held = []
    folder = Path("/run/lock/pytest-imagemount")
    for path in folder.glob("*.lock") if folder.is_dir() else ():
        with suppress(OSError), path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.append(f"lock {path}")
    return held


def processes() -> list[tuple[int, str]]:
    """pid and command of every helper, and of every program that a helper starts."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if any(program in command for program in _PROGRAMS):
                    found.append((int(entry.name), command))
    return found


def _is_ours(pid: int) -> bool:
    """Whether this process is ``pid`` or an ancestor of it."""
    return os.getpid() in (pid, *_ancestors(pid))


def _of_another_run(helper: int) -> bool:
    """Whether the helper has a parent that is alive and nothing of ours."""
    ancestors = _ancestors(helper)
    return len(ancestors) > 1 and os.getpid() not in ancestors


def _ancestors(pid: int) -> list[int]:
    """The parent of ``pid``, its parent, and so on to init; empty where it has ended."""
    found: list[int] = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.append(pid)
    return found
