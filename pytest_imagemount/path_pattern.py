"""Patterns of whole paths, as pathlib's full_match of Python 3.13 has them."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Part = Callable[[str], object] | None


def path_matcher(pattern: str, *, case_sensitive: bool = True) -> Callable[[str], bool]:
    """A function that says whether an absolute path matches: ``**`` as a part is any number of parts.

    ``*``, ``?`` and ``[…]`` stay in one part. At the end ``**`` is all that is below a folder, without the folder. A
    pattern without a slash in front starts at the root all the same.
    """
    flags = 0 if case_sensitive else re.IGNORECASE
    wanted: list[Part] = [
        None if part == "**" else re.compile(fnmatch.translate(part), flags).match for part in _parts(pattern)
    ]
    if not any(wanted):
        return lambda path: bool(wanted) or not _parts(path)  # "/**" is the root too, as in pathlib
    return lambda path: _match(_parts(path), wanted)


def any_matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """A function that says whether an absolute path matches one of ``patterns``."""
    matchers = [path_matcher(pattern) for pattern in patterns]
    return lambda path: any(matches(path) for matches in matchers)


def _match(parts: Sequence[str], wanted: Sequence[Part]) -> bool:
    if not wanted:
        return not parts
    first, rest = wanted[0], wanted[1:]
    if first is not None:
        return bool(parts) and first(parts[0]) is not None and _match(parts[1:], rest)
    if not rest:
        return bool(parts)
    return any(_match(parts[start:], rest) for start in range(len(parts) + 1))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]
