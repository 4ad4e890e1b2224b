"""LVM's text format: sections, keys, numbers, strings and lists. Source: lvm.conf(5); LVM2's libdm/libdm-config.c."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Value = int | float | str | list["Value"]
Section = dict[str, "Value | Section"]

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)
    |"(?P<text>(?:[^"\\]|\\.)*)"
    |(?P<number>[-+]?[0-9]+(?:\.[0-9]+)?)(?![\w.+-])
    |(?P<word>[\w.+/-]+)
    |(?P<sign>[{}\[\]=,])""",
    re.VERBOSE | re.DOTALL,
)
_DEEPEST = 16


def parse(text: str) -> Section:
    """The sections and values of ``text``. A comment is from ``#`` to the end of its line.

    :raises ValueError: it is not of this form, or nested too deeply
    """
    tokens = _tokens(text)
    section, ended = _section(tokens, 0)
    if ended:
        raise ValueError("a section is closed that was not opened")
    return section


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise ValueError(f"not understood: {text[place : place + 20]!r}")
        place = found.end()
        if found.lastgroup != "skip":
            assert found.lastgroup is not None
            yield found.lastgroup, found[found.lastgroup]


def _section(tokens: Iterator[tuple[str, str]], depth: int) -> tuple[Section, bool]:
    """The content of a section, and whether a brace closed it or the text ended."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    section: Section = {}
    for kind, name in tokens:
        if (kind, name) == ("sign", "}"):
            return section, True
        if kind not in ("word", "number", "text"):
            raise ValueError(f"a name is missing before {name!r}")
        sign = _next(tokens)
        if sign == ("sign", "{"):
            section[name], closed = _section(tokens, depth + 1)
            if not closed:
                raise ValueError(f"the section {name} is not closed")
        elif sign == ("sign", "="):
            section[name] = _value(tokens, *_next(tokens), depth)
        else:
            raise ValueError(f"{name} is neither a section nor has it a value")
    return section, False


def _value(tokens: Iterator[tuple[str, str]], kind: str, token: str, depth: int) -> Value:
    if kind == "text":
        return re.sub(r"\\(.)", r"\1", token, flags=re.DOTALL)
    if kind == "number":
        return float(token) if "." in token else int(token)
    if (kind, token) != ("sign", "[") or depth > _DEEPEST:
        raise ValueError(f"no value: {token!r}")
    values: list[Value] = []
    while (found := _next(tokens)) != ("sign", "]"):
        if found != ("sign", ","):
            values.append(_value(tokens, *found, depth + 1))
    return values


def _next(tokens: Iterator[tuple[str, str]]) -> tuple[str, str]:
    found = next(tokens, None)
    if found is None:
        raise ValueError("it ends too early")
    return found
