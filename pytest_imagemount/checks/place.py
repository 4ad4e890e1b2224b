"""Where something stands in a check file, and what a user reads who made a mistake there."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


_OTHER_WORDS = {"present": ("exists", "installed"), "missing": ("absent",), "removed": ("absent",)}
"""What other tools call it; by its letters alone ``present`` would be taken for ``absent``."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in a file; line and column are counted from 1."""

    line: int
    column: int


def mistake(file: str, place: Place, text: str) -> str:
    """``file:line:column: text``, as compilers write it and editors follow it."""
    return f"{file}:{place.line}:{place.column}: {text}"


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """``; did you mean 'enabled'?``, or an empty text where nothing known is like ``word``."""
    meant = [name for name in known if name in _OTHER_WORDS.get(word.lower(), ())]
    if meant or word.lower() in _OTHER_WORDS:
        return f"; did you mean {meant[0]!r}?" if meant else ""
    folded = {name.lower().replace("_", "-"): name for name in known}
    close = difflib.get_close_matches(word.lower().replace("_", "-"), folded, n=1, cutoff=0.6)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""
