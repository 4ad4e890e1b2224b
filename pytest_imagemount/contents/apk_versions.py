"""Comparing versions of Alpine packages, as apk-tools 2.14 and 3 do.

A version is ``digits{.digits}[letter]{_suffix[digits]}[~hash][-rdigits]``. Source: apk-package(5).
"""

from __future__ import annotations

import re
from enum import IntEnum
from itertools import zip_longest
from typing import NamedTuple


class _Kind(IntEnum):
    """Of two versions that first differ in kind the lower kind is newer: ``1.2.3``, then ``1.2a``, then ``1.2``."""

    FIRST_NUMBER = 0
    NUMBER = 1
    LETTER = 2
    SUFFIX = 3
    SUFFIX_NUMBER = 4
    HASH = 5
    REVISION = 6
    END = 7
    INVALID = 8


class _Token(NamedTuple):
    kind: _Kind
    text: str


_PATTERNS = {
    _Kind.FIRST_NUMBER: r"[0-9]+",
    _Kind.NUMBER: r"\.([0-9]+)",
    _Kind.LETTER: r"[a-z]",
    _Kind.SUFFIX: r"_(alpha|beta|pre|rc|cvs|svn|git|hg|p)",
    _Kind.SUFFIX_NUMBER: r"[0-9]+",
    _Kind.HASH: r"~([0-9a-f]+)",
    _Kind.REVISION: r"-r([0-9]+)",
}
_FOLLOWED_BY = {
    _Kind.FIRST_NUMBER: (_Kind.NUMBER, _Kind.LETTER, _Kind.SUFFIX, _Kind.HASH, _Kind.REVISION),
    _Kind.NUMBER: (_Kind.NUMBER, _Kind.LETTER, _Kind.SUFFIX, _Kind.HASH, _Kind.REVISION),
    _Kind.LETTER: (_Kind.SUFFIX, _Kind.HASH, _Kind.REVISION),
    _Kind.SUFFIX: (_Kind.SUFFIX_NUMBER, _Kind.SUFFIX, _Kind.HASH, _Kind.REVISION),
    _Kind.SUFFIX_NUMBER: (_Kind.SUFFIX, _Kind.HASH, _Kind.REVISION),
    _Kind.HASH: (_Kind.REVISION,),
    _Kind.REVISION: (),
}
_SUFFIXES = ("alpha", "beta", "pre", "rc", "", "cvs", "svn", "git", "hg", "p")
"""In order; those before the empty one are of versions that come before the release."""

_END = _Token(_Kind.END, "")


def compare_apk(a: str, b: str) -> int:
    """-1, 0 or 1, as ``apk version -t A B`` prints ``<``, ``=`` or ``>``."""
    for one, other in zip_longest(_tokens(a), _tokens(b), fillvalue=_END):
        if one.kind != other.kind:
            return _compare_kinds(one, other)
        if order := _compare_texts(one, other):
            return order
    return 0


def _tokens(version: str) -> list[_Token]:
    found: list[_Token] = []
    place = 0
    allowed: tuple[_Kind, ...] = (_Kind.FIRST_NUMBER,)
    while place < len(version):
        for kind in allowed:
            if match := re.compile(_PATTERNS[kind]).match(version, place):
                found.append(_Token(kind, match[match.lastindex or 0]))
                place, allowed = match.end(), _FOLLOWED_BY[kind]
                break
        else:
            return [*found, _Token(_Kind.INVALID, "")]
    return found


def _compare_kinds(one: _Token, other: _Token) -> int:
    if _is_before_release(one):
        return -1
    if _is_before_release(other):
        return 1
    return -1 if one.kind > other.kind else 1


def _is_before_release(token: _Token) -> bool:
    return token.kind is _Kind.SUFFIX and _SUFFIXES.index(token.text) < _SUFFIXES.index("")


def _compare_texts(one: _Token, other: _Token) -> int:
    a, b = one.text, other.text
    if one.kind is _Kind.SUFFIX:
        first, second = _SUFFIXES.index(a), _SUFFIXES.index(b)
        return (first > second) - (first < second)
    is_fraction = one.kind is _Kind.NUMBER and (a.startswith("0") or b.startswith("0"))
    if not is_fraction and one.kind not in (_Kind.LETTER, _Kind.HASH, _Kind.INVALID):
        a, b = a.lstrip("0"), b.lstrip("0")
        if len(a) != len(b):
            return 1 if len(a) > len(b) else -1
    return (a > b) - (a < b)
