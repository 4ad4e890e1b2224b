"""Images that are kept: made once however many ask, made anew when the source changed, nothing left of a failure."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount import image_cache
from pytest_imagemount.engine.undo import wait_until
from pytest_imagemount.errors import CapabilityMissing, ImageInvalid
from pytest_imagemount.image_cache import ImageCache, Source, cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.usefixtures("descriptors_are_closed")
MIB = 1 << 20


@pytest.fixture
def descriptors_are_closed() -> Iterator[None]:
    before = sorted(Path("/proc/self/fd").iterdir())
    yield
    assert sorted(Path("/proc/self/fd").iterdir()) == before


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return cache_folder(tmp_path / "cache")


@pytest.fixture
def cache(folder: Path) -> ImageCache:
    return ImageCache(folder, 1 << 40)


def nobody_waits(pids: list[int]) -> None:
    pytest.fail("nobody else makes it")


def write(content: bytes) -> Callable[[int], None]:
    def make(fd: int) -> None:
        assert os.fstat(fd).st_size == 0
        os.pwrite(fd, content, 0)

    return make


def never(fd: int) -> None:
    pytest.fail("it is kept already")


def ask(cache: ImageCache, path: Path, make: Callable[[int], None] = never) -> bytes:
    source = os.open(path, os.O_RDONLY)
    try:
        fd = cache.open([Source(path, source)], path.name, make, nobody_waits)
        try:
            return os.pread(fd, 100, 0)
        finally:
            os.close(fd)
    finally:
        os.close(source)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img.gz"
    path.write_bytes(b"compressed")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_it_is_made_once(cache: ImageCache, source: Path, folder: Path) -> None:
    assert ask(cache, source, write(b"image")) == b"image"
    assert ask(cache, source) == b"image"
    assert ask(ImageCache(folder, 1), source) == b"image"
    assert names(folder) == [".img", ".json"]


def test_what_is_given_out_cannot_be_written_to(cache: ImageCache, source: Path, folder: Path) -> None:
    ask(cache, source, write(b"image"))
    fd = os.open(source, os.O_RDONLY)
    image = cache.open([Source(source, fd)], "disk", never, nobody_waits)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(image, b"x")
    os.close(image)
    os.close(fd)
    assert [path.stat().st_mode & 0o777 for path in folder.glob("*.img")] == [0o400]


@pytest.mark.parametrize("times", ["new", "set back"])
def test_a_source_of_the_same_length_that_changed_is_made_anew(cache: ImageCache, source: Path, times: str) -> None:
    ask(cache, source, write(b"first"))
    status = source.stat()
    source.write_bytes(b"COMPRESSED")
    if times == "set back":
        os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ask(cache, source, write(b"second")) == b"second"


def test_a_change_right_after_a_change_is_seen(cache: ImageCache, source: Path) -> None:
    # Both within one tick of the file system's clock, were it not waited for.
    for round in range(20):
        source.write_bytes(b"%010d" % round)
        assert ask(cache, source, write(b"%d" % round)) == b"%d" % round


def test_a_copy_is_not_its_original(cache: ImageCache, source: Path) -> None:
    ask(cache, source, write(b"first"))
    copy = source.with_name("copy")
    copy.write_bytes(source.read_bytes())
    assert ask(cache, copy, write(b"second")) == b"second"


def test_a_failure_leaves_nothing(cache: ImageCache, source: Path, folder: Path) -> None:
    def fail(fd: int) -> None:
        os.pwrite(fd, b"half", 0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(cache, source, fail)
    assert names(folder) == []
    assert ask(cache, source, write(b"image")) == b"image"


def test_a_disk_that_is_full_at_the_last_moment_leaves_nothing(
    cache: ImageCache, source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(path: Path, text: str) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="full"):
        ask(cache, source, write(b"image"))
    assert names(folder) == []


def test_a_source_that_changes_meanwhile_is_an_error(cache: ImageCache, source: Path, folder: Path) -> None:
    def change(fd: int) -> None:
        with source.open("ab") as file:
            file.write(b"more")

    with pytest.raises(ImageInvalid, match=r"'disk.img.gz': it changed while it was unpacked"):
        ask(cache, source, change)
    assert names(folder) == []


def test_threads_that_ask_at_once_get_what_one_of_them_makes(cache: ImageCache, source: Path) -> None:
    made: list[int] = []
    got: list[bytes] = []
    everybody = threading.Barrier(4)

    def make(fd: int) -> None:
        made.append(fd)
        wait_until(lambda: len(waited) > 2, 5)
        os.pwrite(fd, b"image", 0)

    waited: set[int] = set()

    def run() -> None:
        fd = os.open(source, os.O_RDONLY)
        everybody.wait()
        image = cache.open([Source(source, fd)], "disk", make, lambda pids: waited.add(threading.get_ident()))
        got.append(os.pread(image, 10, 0))
        os.close(image)
        os.close(fd)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), got) == (1, [b"image"] * 4)


MAKER = """
import os, sys, time
from pathlib import Path
from pytest_imagemount.image_cache import ImageCache, Source
path = Path(sys.argv[2])
def make(fd):
    os.pwrite(fd, b"half", 0)
    print("making", flush=True)
    time.sleep(60)
ImageCache(Path(sys.argv[1]), 1 << 40).open([Source(path, os.open(path, os.O_RDONLY))], "disk", make, print)
"""


def test_who_waits_for_a_process_that_is_killed_makes_it(cache: ImageCache, source: Path, folder: Path) -> None:
    maker = subprocess.Popen([sys.executable, "-c", MAKER, str(folder), str(source)], stdout=subprocess.PIPE)
    assert maker.stdout is not None
    assert maker.stdout.readline() == b"making\n"
    seen: list[list[int]] = []

    def waiting(pids: list[int]) -> None:
        seen.append(pids)
        if len(seen) == 3:
            maker.send_signal(signal.SIGKILL)
            maker.wait()

    fd = os.open(source, os.O_RDONLY)
    image = cache.open([Source(source, fd)], "disk", write(b"image"), waiting)
    assert os.pread(image, 10, 0) == b"image"
    assert seen[0] == [maker.pid]
    os.close(image)
    os.close(fd)
    maker.stdout.close()
    assert names(folder) == [".img", ".json"]


def test_what_a_dead_process_was_making_is_removed(
    cache: ImageCache, folder: Path, tmp_path: Path, source: Path
) -> None:
    maker = subprocess.Popen([sys.executable, "-c", MAKER, str(folder), str(source)], stdout=subprocess.PIPE)
    assert maker.stdout is not None
    maker.stdout.readline()
    cache.tidy()
    assert names(folder) == [".part"]
    maker.kill()
    maker.wait()
    maker.stdout.close()
    cache.tidy()
    assert names(folder) == []


def test_the_image_of_a_source_that_is_gone_or_changed_goes(cache: ImageCache, folder: Path, tmp_path: Path) -> None:
    for name in ("kept", "gone", "changed"):
        (tmp_path / name).write_text(name)
        ask(cache, tmp_path / name, write(name.encode()))
    (tmp_path / "gone").unlink()
    (tmp_path / "changed").write_text("CHANGED")
    cache.tidy()
    assert [path.read_bytes() for path in folder.glob("*.img")] == [b"kept"]
    assert names(folder) == [".img", ".json"]


def test_the_image_of_another_boot_goes(cache: ImageCache, source: Path, folder: Path) -> None:
    ask(cache, source, write(b"image"))
    (note,) = folder.glob("*.json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "boot": "another"}))
    cache.tidy()
    assert names(folder) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": 1}', '{"boot": null, "sources": [["x"]]}'])
def test_an_image_whose_note_says_nothing_goes(cache: ImageCache, source: Path, folder: Path, text: str) -> None:
    ask(cache, source, write(b"image"))
    (note,) = folder.glob("*.json")
    note.write_text(text)
    cache.tidy()
    assert names(folder) == []


def test_the_least_recently_used_ones_go_beyond_the_limit(folder: Path, tmp_path: Path) -> None:
    cache = ImageCache(folder, 2 * MIB + MIB // 2)
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        ask(cache, tmp_path / name, write(name.encode() * MIB))
    ask(cache, tmp_path / "a")
    (tmp_path / "c").write_text("c")
    ask(cache, tmp_path / "c", write(b"c" * MIB))
    cache.tidy()
    assert sorted(path.read_bytes()[:1] for path in folder.glob("*.img")) == [b"a", b"c"]
    ImageCache(folder, 1).tidy()
    assert [path.read_bytes()[:1] for path in folder.glob("*.img")] == [b"c"]


def test_clear_removes_all_of_it_but_what_is_being_made(cache: ImageCache, folder: Path, source: Path) -> None:
    ask(cache, source, write(b"image"))
    (image,) = folder.glob("*.img")
    (folder / "dead.part").touch()
    assert cache.clear() == [image]
    assert names(folder) == []


def test_a_time_in_the_future_is_not_waited_for(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("an hour is too long"))
    with source.open("rb") as file:
        assert image_cache._settled(file.fileno()).size == 10


def test_the_folder_is_where_the_user_says_then_xdg_then_home_then_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cache, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder(tmp_path / "mine") == tmp_path / "mine"
    assert cache_folder() == tmp_path / "xdg/pytest-imagemount"
    assert (tmp_path / "xdg/pytest-imagemount").stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == tmp_path / "home/.cache/pytest-imagemount"
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert cache_folder() == tmp_path / f"pytest-imagemount-cache-{os.geteuid()}"


def test_a_folder_that_others_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(CapabilityMissing, match="not a folder that this user alone writes to; name a folder"):
        cache_folder(tmp_path / "open")
    with pytest.raises(CapabilityMissing, match="image cache is not available here: /proc/nowhere: "):
        cache_folder(Path("/proc/nowhere"))
