"""Images that were unpacked or joined, kept for the next test, worker and run of the same user.

An image is kept under a name that is made of what the kernel says of its source: device, inode, length, times of
change. The names hold until the next boot: device numbers may differ after it, and after a crash the content would have
to be doubted, since nothing waits here for it to be on the disk.

One process makes an image and the others wait for it: the file in the making is locked with flock(2), which the kernel
drops with the process, and is renamed when it is complete. So there are no lock files to keep, and a file in the making
without a lock is a dead process's.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import time
from contextlib import suppress
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

from .engine.image_lock import holders
from .errors import CapabilityMissing, ImageInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NAME = "pytest-imagemount"
_LAYOUT = 1  # of what is kept: another number, other names
_IMAGE, _NOTE, _PART = ".img", ".json", ".part"
_PAUSE = 0.02  # seconds between two looks at a file that another process makes

# How long, in seconds, two changes may bear one time: a tick of the kernel's clock where the file system is local, two
# seconds where it may not be (FAT; servers). Numbers of file systems from statfs(2).
_TICK, _COARSE = 0.02, 2.0
_LOCAL = frozenset({0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630, 0xF2F52010, 0x2FC12FC1, 0xCA451A4E})


@dataclass(frozen=True, slots=True)
class Identity:
    """What a file is, as long as nobody changes it. The times are in nanoseconds."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True, slots=True)
class Source:
    """A file that an image is made from: its ``path``, and a descriptor of it (not owned)."""

    path: Path
    fd: int


class ImageCache:
    """The images in ``folder``, a folder of the user's own.

    :param limit: bytes that all of them may take on the disk; the least recently used ones have to go
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit

    def open(
        self, sources: Sequence[Source], image: str, make: Callable[[int], None], waiting: Callable[[list[int]], None]
    ) -> int:
        """A descriptor, the caller's to close and for reading only, of the image that ``make`` makes of ``sources``.

        :param image: what errors call it
        :param make: fills the empty file that is open at the descriptor that it gets
        :param waiting: is told, again and again, the pids of those who are making it
        :raises ImageInvalid: a source changed meanwhile
        """
        identities = [_settled(source.fd) for source in sources]
        name = _name(identities)
        while True:
            with suppress(FileNotFoundError):
                return self._open_made(name)
            part = self._folder / f"{name}{_PART}"
            fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                if not _lock(fd, fcntl.LOCK_EX):
                    _wait(fd, waiting)
                elif _is_at(fd, part) and not (self._folder / f"{name}{_IMAGE}").exists():
                    self._make(fd, name, sources, identities, image, make)
                elif _is_at(fd, part):  # made by another between our two looks
                    part.unlink()
            finally:
                # By name, not by closing: a forked child may have the descriptor too.
                fcntl.flock(fd, fcntl.LOCK_UN)
                os.close(fd)

    def tidy(self) -> None:
        """Remove what nobody will ask for, then the least recently used ones beyond the limit."""
        kept = []
        for path in self._folder.glob(f"*{_IMAGE}"):
            # The note comes before the image: one without a note is half removed.
            with suppress(FileNotFoundError):
                if _is_current(path.with_suffix(_NOTE)):
                    status = path.stat()
                    kept.append((status.st_mtime_ns, status.st_blocks * 512, path))
                else:
                    self._remove(path)
        for note in self._folder.glob(f"*{_NOTE}"):
            if not _is_current(note):
                note.unlink(missing_ok=True)
        for part in self._folder.glob(f"*{_PART}"):
            _remove_dead(part)
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept)[:-1]:  # the latest stays, whatever it takes
            if total <= self._limit:
                break
            self._remove(path)
            total -= size

    def kept(self) -> list[Path]:
        """The paths of every image that is kept."""
        return sorted(self._folder.glob(f"*{_IMAGE}"))

    def clear(self) -> list[Path]:
        """Remove every image that is kept, and return their paths. Those that are mounted stay mounted."""
        paths = self.kept()
        for path in paths:
            self._remove(path)
        for part in self._folder.glob(f"*{_PART}"):
            _remove_dead(part)
        return paths

    def _open_made(self, name: str) -> int:
        fd = os.open(self._folder / f"{name}{_IMAGE}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with suppress(OSError):  # the time of its last use; a kept image does not change otherwise
            now = time.time_ns()
            os.utime(fd, ns=(now, now))
        return fd

    def _make(
        self,
        fd: int,
        name: str,
        sources: Sequence[Source],
        identities: Sequence[Identity],
        image: str,
        make: Callable[[int], None],
    ) -> None:
        part, note = self._folder / f"{name}{_PART}", self._folder / f"{name}{_NOTE}"
        try:
            self.tidy()
            os.ftruncate(fd, 0)
            make(fd)
            if [Identity.of(os.fstat(source.fd)) for source in sources] != list(identities):
                hint = "wait until what writes it is done"
                raise ImageInvalid(image=image, reason="it changed while it was unpacked", hint=hint)
            known = [[str(source.path), *astuple(it)] for source, it in zip(sources, identities, strict=True)]
            note.write_text(json.dumps({"boot": _boot(), "sources": known}))
            os.fchmod(fd, 0o400)
            part.rename(self._folder / f"{name}{_IMAGE}")
        except BaseException:
            part.unlink(missing_ok=True)
            note.unlink(missing_ok=True)
            raise

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        path.with_suffix(_NOTE).unlink(missing_ok=True)


def cache_folder(chosen: Path | None = None) -> Path:
    """The folder of kept images, made if it is missing.

    ``chosen``; else ``$XDG_CACHE_HOME/pytest-imagemount``; else ``~/.cache/pytest-imagemount``; and where neither of
    these two can be written, one in the temporary folder.

    :raises CapabilityMissing: it cannot be written, or belongs to somebody else
    """
    if chosen is not None:
        return _own(chosen)
    # Not Path.expanduser, which raises where nobody knows of a home; this leaves the tilde as it is.
    base = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111
    with suppress(CapabilityMissing):
        if base.is_absolute():
            return _own(base / _NAME)
    return _own(Path(gettempdir()) / f"{_NAME}-cache-{os.geteuid()}")


def _own(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
        reason = ""
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
            reason = "it is not a folder that this user alone writes to"
        elif not os.access(folder, os.W_OK | os.X_OK):
            reason = "it cannot be written"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        hint = "name a folder of your own with --imagemount-cache"
        raise CapabilityMissing(capability="image cache", reason=f"{folder}: {reason}", hint=hint)
    return folder


def _settled(fd: int) -> Identity:
    """The identity of the file, once a change that is still to come would show in it."""
    status = os.fstat(fd)
    coarse = _COARSE if _magic(fd) not in _LOCAL else _TICK
    left = status.st_ctime_ns / 1e9 + coarse - time.time()
    if 0 < left <= coarse:  # a time in the future is of another clock, and waiting would not help
        time.sleep(left)
        status = os.fstat(fd)
    return Identity.of(status)


def _magic(fd: int) -> int:
    """``f_type`` of statfs(2), which Python does not wrap."""
    import ctypes

    from .engine.syscalls import libc

    buffer = (ctypes.c_long * 32)()
    return 0 if libc().fstatfs(ctypes.c_int(fd), buffer) else buffer[0] & 0xFFFF_FFFF


def _name(identities: Sequence[Identity]) -> str:
    text = json.dumps([_LAYOUT, _boot(), *map(astuple, identities)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _is_current(note: Path) -> bool:
    """Whether the sources are what they were."""
    try:
        entry = json.loads(note.read_text())
        return entry["boot"] == _boot() and all(
            Identity.of(Path(path).stat()) == Identity(*numbers) for path, *numbers in entry["sources"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait(fd: int, waiting: Callable[[list[int]], None]) -> None:
    # Shared, so that those who wait do not stand in each other's way, nor in that of who mounts the image already.
    while not _lock(fd, fcntl.LOCK_SH):
        waiting(holders(fd))
        time.sleep(_PAUSE)


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _remove_dead(part: Path) -> None:
    """Remove a file in the making that nobody makes any more."""
    try:
        fd = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if _lock(fd, fcntl.LOCK_EX) and _is_at(fd, part):
            part.unlink(missing_ok=True)
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)
