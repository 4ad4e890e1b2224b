"""Leases of NBD devices: one lock file per device, shared by every process of the machine.

The lock says who may use a device; the kernel says whether it is idle. Both must agree. The kernel drops the lock with
the process that held it, however that process ended. A lock file is never removed: a waiter may have it open, and the
lock would be on a file that nobody else sees. What a holder says of itself is in a file next to it.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from ..folders import lock_folder
from ..text import elapsed, printable
from .state import SYS, NbdState, kernel_state
from .turns import Line

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from filelock import BaseFileLock

    from .turns import Place

__all__ = ["Busy", "Holder", "Lease", "NbdPool", "lock_folder"]

BACKEND_PREFIX = "pytest-imagemount:"
"""How the identifier of every connection of ours begins, in ``/sys/block/nbdN/backend``."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who leases a device, and for what.

    :param since: in seconds since the epoch
    :param tag: the same each time the same mount asks: it keeps its place among those who wait. Without one it has none
    """

    pid: int
    worker: str = ""
    test: str = ""
    image: str = ""
    since: float = field(default_factory=time.time)
    tag: str = ""

    def __str__(self) -> str:
        parts = [f"pid {self.pid}", *(part for part in (self.worker, self.test, self.image) if part)]
        # Another user's words, perhaps, for a terminal that is not theirs.
        return printable(f"{', '.join(parts)}, {elapsed(self.since)}")


@dataclass(frozen=True, slots=True)
class Busy:
    """No device is free now. ``holders``: a line each, who has which; ``ahead``: how many are to be served first."""

    holders: tuple[str, ...]
    ahead: int = 0


class Lease:
    """The right to use one device, until :meth:`release` or the end of the process."""

    def __init__(self, index: int, lock: BaseFileLock, note: Path) -> None:
        self.index = index
        self._lock, self._note = lock, note

    def release(self) -> None:
        """Give the device back; twice is fine."""
        if self._lock.is_locked:
            self._note.unlink(missing_ok=True)
            self._lock.release(force=True)


class NbdPool:
    """The NBD devices with index 0 … ``size`` - 1.

    :param folder: where the lock files are: the same for every process that shares the devices
    :param start: the index that is tried first
    """

    def __init__(self, folder: Path, size: int, start: int = 0, *, sys_root: Path = SYS) -> None:
        self._folder, self._size, self._start, self._sys_root = folder, size, start, sys_root
        self._line = Line(folder / "line")
        self._places: dict[str, Place] = {}

    def try_lease(self, holder: Holder, *, skip: Collection[int] = ()) -> Lease | Busy:
        """The first free device, where nobody waits who came before; no waiting here.

        :param skip: indexes not to try: those that the kernel has just refused
        """
        place = self._places.get(holder.tag)
        if not skip and (ahead := self._line.ahead(place)):
            found: Lease | Busy = Busy(self._notes(), ahead)
        else:
            found = self._first_free(holder, skip)
        if isinstance(found, Lease):
            self.give_up(holder.tag)
        elif place is None and holder.tag:
            self._places[holder.tag] = self._line.join()
        return found

    def give_up(self, tag: str) -> None:
        """Give up the place of the mount with that tag among those who wait, if it has one."""
        if place := self._places.pop(tag, None):
            place.leave()

    def leave(self) -> None:
        """Give up every place among those who wait: this process ends."""
        for tag in list(self._places):
            self.give_up(tag)

    def forget_the_dead(self) -> None:
        """Remove the notes, and the places in the line, of processes that were killed."""
        self._line.ahead(None)
        for note in self._folder.glob("nbd*.json"):
            lock = self._try_lock(int(note.stem.removeprefix("nbd")))
            if lock is not None:
                note.unlink(missing_ok=True)
                lock.release(force=True)

    def _notes(self) -> tuple[str, ...]:
        indexes = [index for index in range(self._size) if self._note(index).exists()]
        return tuple(f"nbd{index}: {self._read_note(index)}" for index in indexes)

    def _first_free(self, holder: Holder, skip: Collection[int]) -> Lease | Busy:
        holders = []
        for place in range(self._size):
            index = (self._start + place) % self._size
            if index in skip:
                holders.append(f"nbd{index}: {_describe(kernel_state(index, self._sys_root))}")
                continue
            lock = self._try_lock(index)
            if lock is None:
                holders.append(f"nbd{index}: {self._read_note(index)}")
                continue
            try:
                state = kernel_state(index, self._sys_root)
                if state.idle:
                    self._write_note(index, holder)
                    return Lease(index, lock, self._note(index))
                holders.append(f"nbd{index}: {_describe(state)}")
            except BaseException:
                lock.release(force=True)
                raise
            lock.release(force=True)
        return Busy(tuple(holders))

    def _try_lock(self, index: int) -> BaseFileLock | None:
        # Imported late: it costs 30 ms and 11 MB, which only users of NBD should pay.
        from filelock import FileLock, Timeout

        lock = FileLock(
            self._folder / f"nbd{index}.lock",
            timeout=0,
            thread_local=False,
            fallback_to_soft=False,
            preserve_lock_file=True,
        )
        try:
            lock.acquire()
        except Timeout:
            return None
        return lock

    def _note(self, index: int) -> Path:
        return self._folder / f"nbd{index}.json"

    def _write_note(self, index: int, holder: Holder) -> None:
        note = self._note(index)
        fresh = note.with_suffix(f".{os.getpid()}.new")
        fresh.write_text(json.dumps(asdict(holder)))
        fresh.replace(note)

    def _read_note(self, index: int) -> str:
        with suppress(OSError, ValueError, TypeError):
            return str(Holder(**json.loads(self._note(index).read_text())))
        return "a process that left no note"


def _describe(state: NbdState) -> str:
    if state.pid is None:
        return "busy, though nobody has connected it" if state.sectors else "just taken by another program"
    if state.backend.startswith(BACKEND_PREFIX):
        return f"left connected by process {state.pid}, which is gone: run `imagemount clean`"
    return f"connected by process {state.pid}, which is none of ours"
