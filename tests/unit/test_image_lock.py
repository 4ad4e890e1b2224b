from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine import image_lock
from pytest_imagemount.engine.image_lock import holders, lock_image
from pytest_imagemount.errors import ImageLocked
from pytest_imagemount.helper.who import who_are

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


@pytest.fixture
def turn(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets whose turn it is, the ``"writers"``' or the ``"readers"``'."""
    now = {"writers": 0.0, "readers": image_lock.TURN}

    def set_turn(whose: str) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: 1000 * image_lock.TURN + now[whose])

    set_turn("writers")
    return set_turn


@pytest.fixture
def descriptor(tmp_path: Path, image: int) -> Iterator[Callable[[], int]]:
    """Opens the image once more."""
    opened: list[int] = []

    def open_it() -> int:
        opened.append(os.open(tmp_path / "disk.raw", os.O_RDWR))
        return opened[-1]

    yield open_it
    for fd in opened:
        os.close(fd)


def test_readers_who_come_later_wait_behind_a_writer(
    image: int, descriptor: Callable[[], int], turn: Callable[[str], None]
) -> None:
    reader, writer = lock_image(image, "disk.raw", exclusive=False), descriptor()
    with pytest.raises(ImageLocked) as caught:
        lock_image(writer, "disk.raw", exclusive=True)
    assert not caught.value.writer_waits
    with pytest.raises(ImageLocked, match="somebody waits to write to it, and comes first") as caught:
        lock_image(descriptor(), "disk.raw", exclusive=False)
    assert (caught.value.writer_waits, caught.value.pids) == (True, (os.getpid(),))
    reader.release()
    lock_image(writer, "disk.raw", exclusive=True).release()
    lock_image(image, "disk.raw", exclusive=False).release()


def test_a_writer_who_gave_up_stands_in_nobodys_way(image: int, tmp_path: Path, turn: Callable[[str], None]) -> None:
    reader, writer = lock_image(image, "disk.raw", exclusive=False), os.open(tmp_path / "disk.raw", os.O_RDWR)
    with pytest.raises(ImageLocked):
        lock_image(writer, "disk.raw", exclusive=True)
    os.close(writer)
    lock_image(image, "disk.raw", exclusive=False).release()
    reader.release()


def test_a_writer_does_not_wait_behind_itself_to_read(
    image: int, descriptor: Callable[[], int], turn: Callable[[str], None]
) -> None:
    reader, writer = lock_image(image, "disk.raw", exclusive=False), descriptor()
    with pytest.raises(ImageLocked):
        lock_image(writer, "disk.raw", exclusive=True)
    lock_image(writer, "disk.raw", exclusive=False).release()
    reader.release()


def test_readers_pass_a_writer_in_every_second_turn(
    image: int, descriptor: Callable[[], int], turn: Callable[[str], None]
) -> None:
    reader, writer = lock_image(image, "disk.raw", exclusive=False), descriptor()
    for whose in ("writers", "readers"):
        turn(whose)
        with pytest.raises(ImageLocked):
            lock_image(writer, "disk.raw", exclusive=True)
    lock_image(descriptor(), "disk.raw", exclusive=False).release()
    reader.release()


def test_of_two_writers_each_comes_to_its_turn(
    image: int, descriptor: Callable[[], int], turn: Callable[[str], None]
) -> None:
    reader, first, second = lock_image(image, "disk.raw", exclusive=False), descriptor(), descriptor()
    for writer in (first, second):
        with pytest.raises(ImageLocked):
            lock_image(writer, "disk.raw", exclusive=True)
    reader.release()
    lock_image(second, "disk.raw", exclusive=True).release()
    with pytest.raises(ImageLocked):
        lock_image(image, "disk.raw", exclusive=False)
    lock_image(first, "disk.raw", exclusive=True).release()
    lock_image(image, "disk.raw", exclusive=False).release()


def test_a_file_system_without_such_locks_has_no_line(
    image: int, descriptor: Callable[[], int], turn: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, command: int, argument: int | bytes = 0) -> int | bytes:
        if command in (fcntl.F_OFD_SETLK, fcntl.F_OFD_GETLK):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return real(fd, command, argument)

    real = fcntl.fcntl
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    reader = lock_image(image, "disk.raw", exclusive=False)
    with pytest.raises(ImageLocked):
        lock_image(descriptor(), "disk.raw", exclusive=True)
    lock_image(descriptor(), "disk.raw", exclusive=False).release()
    reader.release()


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
