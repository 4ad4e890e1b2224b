"""The journal: what a helper holds, on disk, for those who come after it was killed, and for ``imagemount ps``.

One JSON file a mount, ``journal/NUMBER.json`` in the helper's folder, replaced as a whole, never half-written. It is
there before the first kernel object of the mount and gone after the last. There is no fsync: it has to survive a
process, and the kernel objects that it speaks of do not survive the machine either. No record holds a secret.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from ..engine.held_folder import TOKEN
from ..engine.processes import ProcessId

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 1
FOLDER = "journal"
_MAX_RECORD = 64 * 1024
"""Bytes of the longest record that is read."""
_MAX_RECORDS = 10_000
_NO_LINK = os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One mount.

    :param token: of the helper's folder; ``TOKEN:NUMBER`` marks the loop device or the NBD connection
    :param helper: the process that holds it
    :param owner: the process for which it is held
    :param worker: ``gw0``, or empty without pytest-xdist
    :param test: node id of the test or scope
    :param image: path of the image
    :param format: of the image; empty before it is known, as are ``backend``, ``device`` and ``mountpoint``
    :param partition: as asked for, then the number that it has
    :param mode: ``ro``, ``overlay`` or ``rw``
    :param diskseq: of the loop device, which tells it from every other use of its number; empty for NBD and before
        Linux 5.15
    :param daemon: the storage daemon, None where there is none
    :param since: when it was asked for, in seconds since the epoch
    :param kept: it outlives the run, as ``--imagemount-keep`` wants
    """

    token: str
    number: int
    helper: ProcessId
    owner: ProcessId
    worker: str
    test: str
    image: str
    partition: int | str | None
    mode: str
    since: float
    format: str = ""
    backend: str = ""
    device: str = ""
    diskseq: str = ""
    mountpoint: str = ""
    daemon: ProcessId | None = None
    kept: bool = False

    @property
    def tag(self) -> str:
        """What marks its device in the kernel."""
        return f"{self.token}:{self.number}"

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The record that was written; every field is checked.

        :raises ValueError: this is no record, or one of another version
        """
        try:
            value = json.loads(data)
        except RecursionError:
            raise ValueError("not JSON of ours: too deep") from None
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        if (version := value.pop("version", None)) != VERSION:
            raise ValueError(f"of version {version!r}, not {VERSION}")
        if unknown := value.keys() ^ _CHECKS.keys():
            raise ValueError(f"fields missing or unknown: {', '.join(sorted(unknown))[:200]}")
        if wrong := [name for name, check in _CHECKS.items() if not check(value[name])]:
            raise ValueError(f"of a wrong type: {', '.join(wrong)}")
        processes = {name: ProcessId(**value[name]) for name in ("helper", "owner", "daemon") if value[name]}
        return cls(**{**value, **processes})


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_process(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"pid", "start"} and all(map(_is_number, value.values()))


_CHECKS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(
        ("worker", "test", "image", "mode", "format", "backend", "device", "diskseq", "mountpoint"), _is_text
    ),
    "token": lambda value: _is_text(value) and TOKEN.fullmatch(value) is not None,
    "number": _is_number,
    "helper": _is_process,
    "owner": _is_process,
    "daemon": lambda value: value is None or _is_process(value),
    "partition": lambda value: value is None or _is_text(value) or (type(value) is int and abs(value) < 1 << 31),
    "since": lambda value: type(value) in (int, float) and 0 <= value < 1 << 40,
    "kept": lambda value: isinstance(value, bool),
}


class Journal:
    """The records of this helper, in the folder that is open at ``folder``."""

    def __init__(self, folder: int) -> None:
        self._parent = folder
        self._fd = -1

    def write(self, record: Record) -> None:
        """Put ``record`` in place of the one that the mount had.

        :raises OSError: it cannot be written
        """
        if self._fd < 0:
            os.mkdir(FOLDER, 0o755, dir_fd=self._parent)
            self._fd = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, dir_fd=self._parent)
            os.fchmod(self._fd, 0o755)
        fresh, name = f"{record.number}.new", f"{record.number}.json"
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_LINK, 0o644, dir_fd=self._fd)
        try:
            data = json.dumps(record.to_json()).encode()
            if os.write(fd, data) != len(data):
                raise OSError(f"the journal could not be written: no space for {fresh}")
        finally:
            os.close(fd)
        os.rename(fresh, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, number: int) -> None:
        """Remove the record of mount ``number``, which is wholly undone."""
        if self._fd < 0:
            return
        for name in (f"{number}.json", f"{number}.new"):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._fd)

    def close(self) -> None:
        """Remove the journal, if nothing is in it any more; twice is fine."""
        if self._fd < 0:
            return
        os.rmdir(FOLDER, dir_fd=self._parent)
        os.close(self._fd)
        self._fd = -1


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A file in a journal that is no record of ours."""

    name: str
    reason: str


def read_journal(folder: int, token: str, *, owner: int) -> tuple[list[Record], list[Unreadable]]:
    """The records in the helper folder open at ``folder``, and what is no record.

    Nothing in a folder is believed for standing there: links are not followed, sizes are bounded, every field is
    checked, and the record must be of ``token`` and of the file's own number.

    :param owner: the user id that must have written them
    """
    records: list[Record] = []
    unreadable: list[Unreadable] = []
    try:
        fd = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK, dir_fd=folder)
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [Unreadable(FOLDER, error.strerror or str(error))]
    try:
        names = sorted(os.listdir(fd))  # noqa: PTH208  (of a descriptor)
        for name in names[:_MAX_RECORDS]:
            if name.endswith(".new"):  # its helper was killed while writing: the record before it stands
                continue
            try:
                record = Record.parse(_read(fd, name, owner))
                if (record.token, f"{record.number}.json") != (token, name):
                    raise ValueError(f"a record of {record.tag}, which is not this folder's")
                records.append(record)
            except FileNotFoundError:  # undone in the meantime
                continue
            except OSError as error:
                unreadable.append(Unreadable(f"{FOLDER}/{name}", error.strerror or str(error)))
            except ValueError as error:
                unreadable.append(Unreadable(f"{FOLDER}/{name}", str(error)))
        if len(names) > _MAX_RECORDS:
            unreadable.append(Unreadable(FOLDER, f"{len(names)} files: only {_MAX_RECORDS} were read"))
    finally:
        os.close(fd)
    return records, unreadable


def _read(folder: int, name: str, owner: int) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_NONBLOCK | _NO_LINK, dir_fd=folder)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if status.st_uid != owner:
            raise ValueError(f"it belongs to user {status.st_uid}")
        if status.st_size > _MAX_RECORD:
            raise ValueError(f"longer than {_MAX_RECORD} bytes")
        return os.read(fd, _MAX_RECORD)
    finally:
        os.close(fd)
