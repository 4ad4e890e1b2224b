"""Values of check files, parsed and shown."""

from __future__ import annotations

import difflib
import stat
from typing import TYPE_CHECKING

from ..engine.text import human_size
from .document import written

if TYPE_CHECKING:
    from collections.abc import Iterable

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block-device",
    stat.S_IFCHR: "char-device",
}


def parse_size(value: object) -> int:
    """Bytes of a size that the schema has passed: ``4096``, ``512 MiB``, ``8G``."""
    text = written(value).removesuffix("B").removesuffix("i").strip()
    unit = text[-1] if text[-1:].isalpha() else ""
    return int(text.removesuffix(unit)) << _UNITS[unit]


def parse_mode(text: str) -> int | None:
    """The bits of an octal mode, or None where it is none."""
    try:
        mode = int(text, 8)
    except ValueError:
        return None
    return mode if 0 <= mode <= 0o7777 else None


def show_size(size: int) -> str:
    """``512 MiB``, or where that is rounded ``1.5 GiB (1,610,612,737 bytes)``."""
    human = human_size(size)
    return human if "." not in human else f"{human} ({size:,} bytes)"


def show_mode(mode: int) -> str:
    """``0644 (rw-r--r--)``."""
    return f"{stat.S_IMODE(mode):04o} ({stat.filemode(mode)[1:]})"


def kind_of(mode: int) -> str:
    """The type of a file by its st_mode, in the words of the schema."""
    return _KINDS.get(stat.S_IFMT(mode), "unknown")


def show_list(words: Iterable[str]) -> str:
    """``a, b, c``, or ``none``."""
    return ", ".join(words) or "none"


def similar(name: str, known: Iterable[str]) -> str:
    """``; similar: nginx-core, nginx-full``: names of the image that are like ``name``, or an empty text."""
    names = list(known)
    close = [each for each in names if each != name and each.startswith(name)][:3]
    close += [each for each in difflib.get_close_matches(name, names, n=3, cutoff=0.7) if each not in close]
    return f"; similar: {', '.join(close[:3])}" if close else ""
