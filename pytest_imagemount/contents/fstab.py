"""``/etc/fstab``, as fstab(5) has it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .reading import invalid, missing, read_names

if TYPE_CHECKING:
    from ..image_path import ImagePath

_PATH = "etc/fstab"
_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_HINT = "fstab(5) has: source target type options dump passno"


@dataclass(frozen=True, slots=True)
class FstabEntry:
    """A line of fstab.

    :param source: as it stands: ``UUID=…``, ``LABEL=…``, ``/dev/vda1``, ``tmpfs``
    :param target: the mount point, or ``none``
    :param options: in order, ``("defaults",)`` where the line gives none
    :param dump: whether dump(8) saves it: 0 or more
    :param passno: when fsck(8) checks it: 0 never, 1 the root, 2 after it
    """

    source: str
    target: str
    fstype: str
    options: tuple[str, ...]
    dump: int
    passno: int


def read_fstab(root: ImagePath) -> tuple[FstabEntry, ...]:
    """The entries in order, with octal escapes such as ``\\040`` decoded.

    :raises FactsMissing: there is no fstab
    :raises FactsInvalid: a line is not as it must be
    """
    path = root / _PATH
    text = read_names(path)
    if text is None:
        hint = "the system may find its partitions by their types; or mount the partition that holds /etc"
        raise missing(root, "fstab", [f"/{_PATH}"], hint)
    found = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip(" \t\r") and not line.lstrip(" \t").startswith("#"):
            found.append(_entry(path, number, line))
    return tuple(found)


def _entry(path: ImagePath, number: int, line: str) -> FstabEntry:
    fields = line.split()
    if len(fields) < 3:
        raise invalid(path, f"has {len(fields)} fields, and three are the least: {line.strip()!r}", _HINT, number)
    source, target, fstype, *rest = (_unescape(field) for field in fields[:6])  # libmount ignores what follows
    options = rest[0] if rest else "defaults"
    for text in rest[1:]:
        if not _NUMBER.fullmatch(text):
            raise invalid(path, f"{text!r} is not a number", _HINT, number)
    dump, passno = ([int(text) for text in rest[1:]] + [0, 0])[:2]
    return FstabEntry(source, target, fstype, tuple(option for option in options.split(",") if option), dump, passno)


def _unescape(field: str) -> str:
    """Each ``\\ooo`` is a byte, not a character."""
    data = field.encode("utf-8", "surrogateescape")
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), data).decode("utf-8", "surrogateescape")
