"""Files of shell assignments, such as os-release(5), locale.conf(5) and ``/etc/default/grub``: read, never run."""

from __future__ import annotations

import re

_NAME = re.compile(r"^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=", re.MULTILINE)
_ESCAPED_IN_DOUBLE_QUOTES = '"\\$`'


def parse_assignments(text: str) -> dict[str, str]:
    """``NAME=value`` lines as a mapping; the last assignment to a name counts, as in a shell.

    Values may be quoted in part or whole and go on over lines inside quotes. Variables are not expanded. Unlike in a
    shell, an unquoted value goes on to the end of its line, spaces included, as many writers of such files expect.
    """
    found: dict[str, str] = {}
    place = 0
    while match := _NAME.search(text, place):
        value, place = _value(text, match.end())
        found[match[1]] = value
    return found


def _value(text: str, place: int) -> tuple[str, int]:
    """The value that starts at ``place``, and where it ends."""
    value: list[str] = []
    while text[place : place + 1] in ("\t", " "):
        place += 1
    kept = 0  # spaces at the end of the value are dropped, up to the last part that was quoted or escaped
    while place < len(text) and text[place] != "\n":
        character = text[place]
        if character == "'":
            end = _find(text, "'", place + 1)
            value += text[place + 1 : end]
            place, kept = end + 1, len(value)
        elif character == '"':
            place = _double_quoted(text, place + 1, value)
            kept = len(value)
        elif character == "\\":
            if text[place + 1 : place + 2] != "\n":
                value += text[place + 1 : place + 2]
                kept = len(value)
            place += 2
        elif character == "#" and text[place - 1] in " \t":
            place = _find(text, "\n", place)
        else:
            value.append(character)
            place += 1
    return "".join(value[:kept]) + "".join(value[kept:]).rstrip(), place


def _double_quoted(text: str, place: int, value: list[str]) -> int:
    """Adds what is quoted from ``place`` on to ``value``; where the text goes on after it."""
    while place < len(text) and text[place] != '"':
        if text[place] == "\\" and text[place + 1 : place + 2] in (*_ESCAPED_IN_DOUBLE_QUOTES, "\n"):
            if text[place + 1] != "\n":
                value.append(text[place + 1])
            place += 2
        else:
            value.append(text[place])
            place += 1
    return place + 1


def _find(text: str, wanted: str, place: int) -> int:
    found = text.find(wanted, place)
    return len(text) if found < 0 else found
