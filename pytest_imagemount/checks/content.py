"""``files``: what is in a file."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from ..engine.text import printable
from .problem import Problem
from .values import show_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..image_path import ImagePath
    from .plan import Check

MOST_BYTES = 16 << 20
"""Text is looked for in files up to this size; a greater one is no text that somebody wrote."""

_LONGEST = 120
_MOST_LINES = 2_000


def content_problems(check: Check, path: ImagePath, shown: str) -> Iterator[Problem]:
    """What of the content of ``path`` is not as ``check`` says; ``shown`` is the path for the problems."""
    if "sha256" in check.expect:
        wanted, found = check.text("sha256").lower(), path.sha256()
        if wanted != found:
            yield Problem("sha256", wanted, found, shown)
    asked = [key for key in ("text", "contains", "not-contains", "matches", "not-matches") if key in check.expect]
    if not asked:
        return
    size = path.stat().st_size
    if size > MOST_BYTES:
        yield Problem(asked[0], f"a text of at most {show_size(MOST_BYTES)}", show_size(size), shown)
        return
    content = path.read_bytes().decode("utf-8", "surrogateescape")
    if "text" in check.expect and check.expect["text"] != content:
        yield Problem("text", *_different(check.text("text"), content), shown)
    for text in check.texts("contains"):
        if text not in content:
            yield Problem("contains", text.rstrip("\n"), _closest(text, content), shown)
    for text in check.texts("not-contains"):
        if (at := content.find(text)) >= 0:
            yield Problem("not-contains", f"no {_cut(text)!r}", _line_at(content, at), shown)
    for pattern in check.texts("matches"):
        if not re.search(pattern, content, re.MULTILINE):
            yield Problem("matches", pattern, _closest(_literal(pattern), content, "no match"), shown)
    for pattern in check.texts("not-matches"):
        if match := re.search(pattern, content, re.MULTILINE):
            yield Problem("not-matches", f"no match of {pattern}", _line_at(content, match.start()), shown)


def _closest(text: str, content: str, otherwise: str = "not in the file") -> str:
    """That it is not there, and the line that is most like it."""
    if not content:
        return "the file is empty"
    lines = content.splitlines()[:_MOST_LINES]
    wanted = next((line for line in text.splitlines() if line.strip()), text).strip()
    close = difflib.get_close_matches(wanted, [line.strip()[:_LONGEST] for line in lines], n=1, cutoff=0.6)
    if not close:
        return otherwise
    number = next(number for number, line in enumerate(lines, 1) if line.strip()[:_LONGEST] == close[0])
    return f"{otherwise}; the closest is line {number}: {_cut(close[0])}"


def _literal(pattern: str) -> str:
    """A regular expression as a line that it might match, to look for one that is like it."""
    return re.sub(r"\\[sS][+*]?", " ", pattern).replace("\\", "").strip("^$")


def _line_at(content: str, at: int) -> str:
    number = content.count("\n", 0, at) + 1
    line = content[content.rfind("\n", 0, at) + 1 :].split("\n", 1)[0]
    return f"line {number}: {_cut(line.strip())}"


def _different(wanted: str, found: str) -> tuple[str, str]:
    """Both as they are shown: from the start, or from the first line that differs where their starts are the same."""
    pairs = enumerate(zip(wanted, found, strict=False))
    at = next((place for place, (one, other) in pairs if one != other), min(len(wanted), len(found)))
    if at < _LONGEST:
        return _whole(wanted), _whole(found)
    number, start = wanted.count("\n", 0, at) + 1, max(wanted.rfind("\n", 0, at) + 1, at - _LONGEST // 2)
    one, other = (
        f"line {number}: {_whole(text[start:])}" if text[at:] else "the text ends there" for text in (wanted, found)
    )
    return one, other


def _whole(text: str) -> str:
    """A content, in quotes where a person could misread it."""
    return printable(repr(text)) if len(text) <= _LONGEST else f"{printable(repr(text[:_LONGEST]))}… ({len(text)} long)"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
