from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.image_lock import holders, lock_image
from pytest_imagemount.errors import ImageLocked
from pytest_imagemount.helper.who import who_are

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def image(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path / "disk.raw", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    yield fd
    os.close(fd)


def test_readers_share_an_image(image: int) -> None:
    for lock in [lock_image(image, "disk.raw", exclusive=False) for _ in range(3)]:
        lock.release()


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True)])
def test_a_writer_shares_it_with_nobody(image: int, first: bool, second: bool) -> None:
    held = lock_image(image, "disk.raw", exclusive=first)
    with pytest.raises(ImageLocked, match=r"disk\.raw") as caught:
        lock_image(image, "disk.raw", exclusive=second)
    assert caught.value.pids == (os.getpid(),)
    held.release()
    held.release()
    lock_image(image, "disk.raw", exclusive=second).release()


def test_two_locks_of_one_descriptor_are_two(image: int) -> None:
    one, two = (lock_image(image, "disk.raw", exclusive=False) for _ in range(2))
    one.release()
    with pytest.raises(ImageLocked):
        lock_image(image, "disk.raw", exclusive=True)
    two.release()


def test_the_lock_is_free_after_its_holder_is_killed(image: int, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pytest_imagemount.engine.image_lock import lock_image\n"
        "lock = lock_image(os.open(sys.argv[1], os.O_RDWR), 'disk', exclusive=True)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "disk.raw"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(ImageLocked) as caught:
            lock_image(image, "disk.raw", exclusive=False)
        assert caught.value.pids == (process.pid,)
        process.kill()
        process.wait()
    lock_image(image, "disk.raw", exclusive=True).release()


def test_who_waits_is_not_among_the_holders(image: int) -> None:
    status = os.fstat(image)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    text = (
        f"1: FLOCK  ADVISORY  WRITE 1234 {place} 0 EOF\n"
        f"1: -> FLOCK  ADVISORY  WRITE 99 {place} 0 EOF\n"
        f"2: POSIX  ADVISORY  WRITE 55 {place} 0 EOF\n"
        "3: FLOCK  ADVISORY  READ 7 00:00:1 0 EOF\n"
    )
    assert holders(image, text) == [1234]


def test_who_holds_it_is_told_in_words_that_are_fit_for_a_terminal() -> None:
    argv = ["cat\x1b[2J", "-"]
    with subprocess.Popen(argv, executable="cat", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        # A program that starts has no command line yet; one that answers has.
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"started\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"started\n"
        assert who_are([process.pid]) == (rf"pid {process.pid} (cat\x1b[2J -)",)


def test_a_process_that_has_ended_is_told_by_its_name() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.DEVNULL) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert who_are([process.pid]) == (f"pid {process.pid} ([cat])",)
    assert who_are([process.pid]) == (f"pid {process.pid} (?)",)
