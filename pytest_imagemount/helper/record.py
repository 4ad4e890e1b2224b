"""One record of the journal: a mount, and what it takes to know its kernel objects again. No record holds a secret."""

from __future__ import annotations

import json
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Self

from ..engine.held_folder import TOKEN
from ..engine.processes import ProcessId

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 1


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
        values: dict[str, Any] = dict(zip(_CHECKS, _values_of(self), strict=True))
        values["version"] = VERSION
        for name in _PROCESSES:
            if (process := values[name]) is not None:
                values[name] = {"pid": process.pid, "start": process.start}
        return values

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
        processes = {name: ProcessId(**value[name]) for name in _PROCESSES if value[name]}
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
_PROCESSES = ("helper", "owner", "daemon")
_values_of = attrgetter(*_CHECKS)
