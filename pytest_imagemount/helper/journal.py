"""The journal: what a helper holds, on disk, for those who come after it was killed, and for ``imagemount ps``.

One file, to which a line is added with every record: a checksum, a blank, the record as JSON. The last line of a mount
counts. A line is there before the first kernel object of its mount; when the last one is gone its first byte is
overwritten, which needs no room and is never half done. A line that its writer did not finish has no end, or does not
fit its checksum. There is no fsync: the journal has to survive a process, and the kernel objects that it speaks of do
not survive the machine either.

A file for each record, replaced as a whole, was the other way: where the folder is on a disk it took six times as long.
"""

from __future__ import annotations

import json
import os
import stat
import zlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .record import Record

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

FILE = "journal"
FRESH = "journal.new"
"""What :data:`FILE` is replaced by when most of its lines are struck out."""
_STRUCK = b"-"
_FEWEST = 256 * 1024
"""Bytes of a journal that is not worth to be written anew."""
_MAX_LINE = 1 << 20
"""Bytes of the longest record that is read: more than a request has room for."""
_MAX_JOURNAL = 256 << 20
_ENCODER = json.JSONEncoder(separators=(",", ":"))
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC


class Journal:
    """The records of this helper, in the folder that is open at ``folder``."""

    def __init__(self, folder: int) -> None:
        self._parent = folder
        self._fd = -1
        self._size = 0
        self._places: dict[int, list[int]] = {}  # of the lines of each mount, oldest first
        self._latest: dict[int, bytes] = {}

    def write(self, record: Record) -> None:
        """Put ``record`` in the place of the one that the mount had.

        :raises OSError: it cannot be written; what was written before stands
        """
        if self._fd < 0:
            self._fd, self._size = self._create(FILE), 0
        line = _line(record)
        self._places.setdefault(record.number, []).append(self._append(line))
        self._latest[record.number] = line

    def remove(self, number: int) -> None:
        """Strike out the record of mount ``number``, which is wholly undone."""
        # The latest last: were we killed, it would still be the one to count.
        for place in self._places.pop(number, ()):
            os.pwrite(self._fd, _STRUCK, place)
        if self._latest.pop(number, None) is not None and self._size > _FEWEST:
            living = sum(map(len, self._latest.values()))
            if self._size > 4 * living:
                self._write_anew()

    def close(self) -> None:
        """Remove the journal, if nothing is in it any more; twice is fine.

        :raises OSError: a record is in it
        """
        if self._fd < 0:
            return
        if self._latest:
            raise OSError(f"the journal is not empty: mount {', '.join(map(str, self._latest))}")
        with suppress(FileNotFoundError):  # somebody has cleared the folder by hand
            os.unlink(FILE, dir_fd=self._parent)
        os.close(self._fd)
        self._fd = -1

    def _append(self, line: bytes) -> int:
        """Write ``line`` at the end; where it lies."""
        place = self._size
        try:
            if os.pwrite(self._fd, line, place) != len(line):
                raise OSError("the journal could not be written: no space")
        except OSError:
            os.ftruncate(self._fd, place)
            raise
        self._size += len(line)
        return place

    def _write_anew(self) -> None:
        """Without the lines that are struck out. Not being able to is no harm."""
        with suppress(OSError):
            fd = self._create(FRESH)
            try:
                lines = b"".join(self._latest.values())
                if os.write(fd, lines) != len(lines):
                    raise OSError("no space")
                os.rename(FRESH, FILE, src_dir_fd=self._parent, dst_dir_fd=self._parent)
            except OSError:
                os.close(fd)
                os.unlink(FRESH, dir_fd=self._parent)
                raise
            os.close(self._fd)
            self._fd, self._size, place = fd, len(lines), 0
            for number, line in self._latest.items():
                self._places[number] = [place]
                place += len(line)

    def _create(self, name: str) -> int:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o644, dir_fd=self._parent)
        os.fchmod(fd, 0o644)  # whatever the umask
        return fd


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A line of a journal that is no record of ours, or the whole of it."""

    name: str
    reason: str


def read_journal(folder: int, token: str, *, owner: int) -> tuple[list[Record], list[Unreadable]]:
    """The records in the helper folder open at ``folder``, and what is no record.

    Nothing in a folder is believed for standing there: a link is not followed, sizes are bounded, every field is
    checked, and a record must be of ``token``.

    :param owner: the user id that must have written them
    """
    try:
        fd = _open(folder, os.O_RDONLY, owner)
    except FileNotFoundError:
        return [], []
    except (OSError, ValueError) as error:
        return [], [Unreadable(FILE, _reason(error))]
    try:
        data = _contents(fd)
    except (OSError, ValueError) as error:
        return [], [Unreadable(FILE, _reason(error))]
    finally:
        os.close(fd)
    records: dict[int, Record] = {}
    unreadable: list[Unreadable] = []
    # What comes after the last line's end was not finished: the mount was not begun.
    for count, line in enumerate(data.split(b"\n")[:-1], 1):
        if line.startswith(_STRUCK):
            continue
        try:
            record = _parse(line)
            if record.token != token:
                raise ValueError(f"a record of {record.tag}, which is not this folder's")
        except ValueError as error:
            unreadable.append(Unreadable(f"{FILE}, line {count}", str(error)))
        else:
            records[record.number] = record
    return list(records.values()), unreadable


def strike_out(folder: int, numbers: Collection[int | None], *, owner: int) -> None:
    """Strike out the records of the mounts ``numbers`` of a dead helper, which are wholly taken down.

    :raises OSError: the journal cannot be written
    :raises ValueError: it is not one of ours
    """
    try:
        fd = _open(folder, os.O_RDWR, owner)
    except FileNotFoundError:
        return
    try:
        for place in _places_of(_contents(fd), numbers):
            os.pwrite(fd, _STRUCK, place)
    finally:
        os.close(fd)


def _places_of(data: bytes, numbers: Collection[int | None]) -> Iterable[int]:
    place = 0
    for line in data.split(b"\n")[:-1]:
        with suppress(ValueError):
            if not line.startswith(_STRUCK) and _parse(line).number in numbers:
                yield place
        place += len(line) + 1


def _line(record: Record) -> bytes:
    data = _ENCODER.encode(record.to_json()).encode()
    return b"%08x %s\n" % (zlib.crc32(data), data)


def _parse(line: bytes) -> Record:
    if len(line) > _MAX_LINE:
        raise ValueError(f"longer than {_MAX_LINE} bytes")
    checksum, _, data = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(data):
        raise ValueError("its checksum does not fit")
    return Record.parse(data)


def _open(folder: int, access: int, owner: int) -> int:
    fd = os.open(FILE, access | os.O_NONBLOCK | _NO_LINK, dir_fd=folder)
    status = os.fstat(fd)
    reason = ""
    if not stat.S_ISREG(status.st_mode):
        reason = "not a regular file"
    elif status.st_uid != owner:
        reason = f"it belongs to user {status.st_uid}"
    elif status.st_size > _MAX_JOURNAL:
        reason = f"longer than {_MAX_JOURNAL} bytes"
    if reason:
        os.close(fd)
        raise ValueError(reason)
    return fd


def _contents(fd: int) -> bytes:
    """All of it as of now: its writer may be at work."""
    parts, place = [], 0
    while part := os.pread(fd, min(1 << 20, _MAX_JOURNAL - place), place):
        parts.append(part)
        place += len(part)
    return b"".join(parts)


def _reason(error: OSError | ValueError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
