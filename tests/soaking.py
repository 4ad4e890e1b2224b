"""The soak: thousands of mounts, and workers that are killed at random; nothing may grow and nothing may be left.

``./tests/soak`` runs it in full, a system test runs a small form of it.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_imagemount import mount_image
from pytest_imagemount.client import close_current_client
from pytest_imagemount.engine.undo import wait_until
from pytest_imagemount.factory.images import build_image
from pytest_imagemount.pending import LIVE
from tests import leaks
from tests.fault_matrix.lane import enter_lane
from tests.fault_matrix.observe import Watch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MOST_GROWTH = 2 << 20
"""Bytes by which the memory of the test process, and of the helper, may grow."""
_WARM_UP = 0.1  # of the cycles: what is imported and cached once is no growth
_LOOK_EVERY = 50  # cycles
_PARTITIONS = [{"fstype": "ext4", "content": {"etc/hostname": "web01\n"}}]

_PLUGINS = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:benchmark")

SUITE = """
import pytest

@pytest.mark.parametrize("number", range({tests}))
def test_it(number, mounted_image):
    disk = ({raw!r}, {qcow2!r})[number % 2]
    with mounted_image(disk, 1) as image:
        assert (image / "etc/hostname").read_text() == "web01\\n"
"""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process: open descriptors, and memory of its own in bytes (not what it shares with others)."""

    descriptors: int
    memory: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        private = sum(int(line.split()[1]) << 10 for line in rollup if line.startswith("Private_"))
        return cls(len(os.listdir(f"/proc/{pid}/fd")), private)  # noqa: PTH208  (counted, not used)

    def __str__(self) -> str:
        return f"{self.descriptors} descriptors, {self.memory / (1 << 20):.1f} MiB"


@dataclass(frozen=True, slots=True)
class Growth:
    """A process after the warm-up and at the end."""

    name: str
    before: Usage
    after: Usage

    @property
    def excess(self) -> str:
        """What has grown beyond what it may; empty if nothing has."""
        found = []
        if self.after.descriptors > self.before.descriptors:
            found.append("descriptors")
        if self.after.memory > self.before.memory + MOST_GROWTH:
            found.append("memory")
        return " and ".join(found)

    def __str__(self) -> str:
        return f"{self.name}: {self.before} → {self.after}" + (f"  GREW: {self.excess}" if self.excess else "")


@dataclass(frozen=True, slots=True)
class Soaked:
    """What came of one soak. ``left`` is what was there afterwards and not before; ``loops`` the most loop devices."""

    name: str
    seconds: float
    growth: tuple[Growth, ...]
    left: tuple[str, ...]
    loops: int
    trouble: str = ""

    @property
    def good(self) -> bool:
        """Whether nothing has grown, and nothing was left."""
        return not self.left and not self.trouble and not any(growth.excess for growth in self.growth)

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.seconds:.1f} s, {self.loops} loop devices at most"]
        lines += [f"  {growth}" for growth in self.growth]
        lines += [f"  left behind: {line}" for line in self.left] + ([f"  {self.trouble}"] if self.trouble else [])
        return "\n".join(lines)


def soak_one_process(form: str, cycles: int, folder: Path) -> Soaked:
    """Mount, read and unmount an image of format ``form`` again and again in this process."""
    mark = f"S{os.getpid()}{form}"
    disk = build_image(folder / f"{mark}.{form}", format=form, table="gpt", partitions=_PARTITIONS)
    watch = _watch(mark, [disk], folder)
    usages: list[dict[str, Usage]] = []
    loops = 0
    start = time.monotonic()
    for number in range(cycles):
        with mount_image(disk, 1) as image:
            assert (image / "etc/hostname").read_text() == "web01\n"
            if number % _LOOK_EVERY == 0:
                loops = max(loops, _attached(mark))
        if number in (int(cycles * _WARM_UP), cycles - 1):
            usages.append({name: Usage.of(pid) for name, pid in _processes().items()})
    seconds = time.monotonic() - start
    close_current_client()
    wait_until(lambda: not watch.left(), 5)
    growth = tuple(Growth(name, usages[0][name], usage) for name, usage in usages[1].items())
    title = f"{cycles} cycles {form} in one process, {seconds / cycles * 1000:.1f} ms each"
    return Soaked(title, seconds, growth, (*watch.left(), *watch.changed()), loops)


def soak_workers(workers: int, tests: int, folder: Path, *, kills: int) -> Soaked:
    """Run ``tests`` tests a worker, raw and qcow2 in turn, and kill ``kills`` workers at random moments meanwhile."""
    mark = f"S{os.getpid()}w"
    disks = {
        form: build_image(folder / f"{mark}.{form}", format=form, table="gpt", partitions=_PARTITIONS)
        for form in ("raw", "qcow2")
    }
    (folder / "pytest.ini").write_text("[pytest]\naddopts =\n")
    suite = SUITE.format(tests=workers * tests, **{form: str(disk) for form, disk in disks.items()})
    (folder / "test_soak.py").write_text(suite)
    watch = _watch(mark, list(disks.values()), folder)
    start = time.monotonic()
    with (folder / "output").open("wb") as output:
        command = [sys.executable, "-m", "pytest", "-q", *_PLUGINS, "-n", str(workers)]
        run = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)
        killed, loops = _kill_some(run, workers, kills, random.Random(workers * tests), mark)
    seconds = time.monotonic() - start
    wait_until(lambda: not watch.left(), 5)
    text = (folder / "output").read_text(errors="replace")
    title = f"{workers} workers of {tests} tests, {killed} workers killed"
    trouble = _trouble(text, killed, kills, workers * tests)
    return Soaked(title, seconds, (), (*watch.left(), *watch.changed()), loops, trouble)


def _kill_some(
    run: subprocess.Popen[bytes], workers: int, kills: int, dice: random.Random, mark: str
) -> tuple[int, int]:
    """Kill workers of ``run`` until it ends; how many were killed, and the most loop devices at once."""
    killed = loops = 0
    next_kill = 0.0
    while run.poll() is None:
        loops = max(loops, _attached(mark))
        mounting = _workers_with_a_helper(run.pid)
        # Not before half of them are at work, and then at random moments of what they do.
        if killed < kills and len(mounting) * 2 >= workers and time.monotonic() >= next_kill:
            with suppress(ProcessLookupError):
                os.kill(dice.choice(mounting), signal.SIGKILL)
                killed += 1
            next_kill = time.monotonic() + dice.uniform(0.1, 0.5)
        time.sleep(dice.uniform(0.005, 0.05))
    return killed, loops


def main() -> int:
    """Exit status 0 when nothing has grown and nothing was left."""
    parser = argparse.ArgumentParser(prog="./tests/soak", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--raw", type=int, default=2000, metavar="N", help="cycles raw (default %(default)s)")
    parser.add_argument("--qcow2", type=int, default=1000, metavar="N", help="cycles qcow2 (default %(default)s)")
    parser.add_argument("--workers", type=int, default=8, metavar="N", help="(default %(default)s)")
    parser.add_argument("--tests", type=int, default=200, metavar="N", help="tests a worker (default %(default)s)")
    parser.add_argument("--kills", type=int, default=24, metavar="N", help="workers to kill (default %(default)s)")
    options = parser.parse_args()
    enter_lane()
    good = True
    for soaked in _soaks(options):
        print(soaked, flush=True)
        good = good and soaked.good
    return 0 if good else 1


def _soaks(options: argparse.Namespace) -> Iterator[Soaked]:
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        yield soak_one_process("raw", options.raw, folder)
        yield soak_one_process("qcow2", options.qcow2, folder)
        yield soak_workers(options.workers, options.tests, folder, kills=options.kills)


def _watch(mark: str, images: Collection[Path], folder: Path) -> Watch:
    temporary = folder / f"{mark}.tmp"
    temporary.mkdir()
    return Watch(mark, images, temporary, nbd=False)


def _processes() -> dict[str, int]:
    """This one, its helper, and the helper's storage daemon if it has one."""
    helper = LIVE.helper
    assert helper is not None
    children = Path(f"/proc/{helper}/task/{helper}/children").read_text().split()
    daemon = {"storage daemon": int(children[0])} if children else {}
    return {"test process": os.getpid(), "helper": helper, **daemon}


def _workers_with_a_helper(controller: int) -> list[int]:
    """The workers of pytest-xdist, children of ``controller``, that have started their helper."""
    with suppress(OSError):
        workers = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
        return [int(pid) for pid in workers if _has_children(pid)]
    return []


def _has_children(pid: str) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/task/{pid}/children").read_text() != ""
    return False


def _attached(mark: str) -> int:
    return sum(f":{mark}" in line for line in leaks.loops())


def _trouble(text: str, killed: int, kills: int, tests: int) -> str:
    """What is wrong with how the run ended: every test has to pass but those that ran in a worker that was killed."""
    last = text.strip().splitlines()[-1].strip("= ")
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|errors?)\b", last)}
    passed, failed = counts.get("passed", 0), counts.get("failed", 0)
    if killed < kills:
        return f"only {killed} of {kills} workers could be killed: {last}"
    if failed > killed or counts.keys() - {"passed", "failed"}:
        return f"more than the killed workers' tests have failed: {last}\n{text[-4000:]}"
    # A worker that is killed between two tests has one counted as failed that has passed.
    return "" if passed >= tests - killed else f"not every test has passed: {last}"


if __name__ == "__main__":
    sys.exit(main())
