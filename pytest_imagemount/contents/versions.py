"""Comparing versions of packages, each package manager by its own rules.

Sources: deb-version(7) for dpkg; the description of version comparison in rpm's manual for rpm; vercmp(8) for pacman;
for apk see :mod:`.apk_versions`.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from ..errors import RequestInvalid
from .apk_versions import compare_apk

if TYPE_CHECKING:
    from collections.abc import Callable

Manager = Literal["dpkg", "rpm", "apk", "pacman"]

_RPM_SEPARATORS, _PACMAN_SEPARATORS = re.compile(r"[^A-Za-z0-9~^]*"), re.compile(r"[^A-Za-z0-9]*")
_DIGITS, _LETTERS = re.compile(r"[0-9]*"), re.compile(r"[A-Za-z]*")
_CONSTRAINT = re.compile(r"\s*(<<|<=|<|>>|>=|>|==|=|!=)\s*([^\s,<>=!]+)\s*")
_HOLDS: dict[str, Callable[[int], bool]] = {
    "<": lambda order: order < 0,
    "<<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    "=": lambda order: order == 0,
    "==": lambda order: order == 0,
    "!=": lambda order: order != 0,
    ">=": lambda order: order >= 0,
    ">": lambda order: order > 0,
    ">>": lambda order: order > 0,
}


def compare(manager: str, a: str, b: str) -> int:
    """-1, 0 or 1: version ``a`` is older than ``b``, equal to it, or newer.

    :param manager: ``dpkg``, ``rpm``, ``apk`` or ``pacman``
    :raises RequestInvalid: there is no such manager
    """
    if manager not in _COMPARE:
        raise RequestInvalid(argument="manager", value=repr(manager), reason=f"is none of {', '.join(_COMPARE)}")
    return _COMPARE[manager](a, b)


def satisfies(manager: str, version: str, constraint: str) -> bool:
    """Whether ``version`` is as ``constraint`` says: ``">= 1.2"``, or several with commas, ``">= 1.2, < 2"``.

    The operators are ``< <= = != >= >``, with ``<<``, ``>>`` and ``==`` for those who are used to them. As in the
    dependencies of rpm and pacman packages, a constraint without a release (what follows the ``-``) is for every
    release; those of dpkg and apk compare all of it.

    :raises RequestInvalid: the constraint is not of this form, or there is no such manager
    """
    for part in constraint.split(","):
        match = _CONSTRAINT.fullmatch(part)
        if match is None:
            reason = "is not of the form '>= 1.2' or '>= 1.2, < 2'"
            raise RequestInvalid(argument="version", value=repr(constraint), reason=reason)
        operator, wanted = match.groups()
        if not _HOLDS[operator](compare(manager, _without_release(manager, version, wanted), wanted)):
            return False
    return True


def _without_release(manager: str, version: str, wanted: str) -> str:
    """``version``, less the release where ``wanted`` has none and the manager then minds none."""
    return version.rpartition("-")[0] or version if manager in ("rpm", "pacman") and "-" not in wanted else version


def compare_dpkg(a: str, b: str) -> int:
    """As ``dpkg --compare-versions``: epoch, upstream version, Debian revision."""
    for part_a, part_b in zip(_dpkg_parts(a), _dpkg_parts(b), strict=True):
        if order := _compare_dpkg_part(part_a, part_b):
            return order
    return 0


def compare_rpm(a: str, b: str) -> int:
    """As rpm's ``rpm.vercmp``: epoch, version, release; without a release is older than with one."""
    releases = (_evr(a)[2], _evr(b)[2])
    return _compare_evr(a, b, _compare_rpm_part) or (releases[0] is not None) - (releases[1] is not None)


def compare_pacman(a: str, b: str) -> int:
    """As vercmp(8): epoch, version, release; a version without a release equals that of every release."""
    return _compare_evr(a, b, _compare_pacman_part)


def _dpkg_parts(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.strip().partition(":")
    if not colon:
        epoch, rest = "0", version.strip()
    upstream, dash, revision = rest.rpartition("-")
    return (epoch, upstream, revision) if dash else (epoch, rest, "")


def _compare_dpkg_part(a: str, b: str) -> int:
    """Text and number in turn: the text by :func:`_dpkg_order` of its characters, the number by its value."""
    pieces_a, pieces_b = _alternating(a), _alternating(b)
    for (text_a, number_a), (text_b, number_b) in zip_longest(pieces_a, pieces_b, fillvalue=("", "")):
        for one, other in zip_longest(text_a, text_b, fillvalue=""):
            if order := _sign(_dpkg_order(one) - _dpkg_order(other)):
                return order
        if order := _compare_numbers(number_a, number_b):
            return order
    return 0


def _alternating(version: str) -> list[tuple[str, str]]:
    return [(match[1], match[2]) for match in re.finditer(r"([^0-9]*)([0-9]*)", version) if match[0]]


def _dpkg_order(character: str) -> int:
    """A tilde is before the end of the text, and that before letters, and those before all else."""
    if character == "~":
        return -1
    if not character:
        return 0
    return ord(character) if character.isascii() and character.isalpha() else ord(character) + 256


def _compare_evr(a: str, b: str, compare_part: Callable[[str, str], int]) -> int:
    epoch_a, version_a, release_a = _evr(a)
    epoch_b, version_b, release_b = _evr(b)
    order = compare_part(epoch_a, epoch_b) or compare_part(version_a, version_b)
    return order if order or release_a is None or release_b is None else compare_part(release_a, release_b)


def _evr(text: str) -> tuple[str, str, str | None]:
    digits = re.match(r"[0-9]*", text)
    assert digits
    epoch = "0"
    if text[digits.end() : digits.end() + 1] == ":":
        epoch, text = digits[0] or "0", text[digits.end() + 1 :]
    version, dash, release = text.rpartition("-")
    return (epoch, version, release) if dash else (epoch, text, None)


def _compare_rpm_part(a: str, b: str) -> int:
    """Runs of digits or of letters; ``~`` is before the end of the text, ``^`` after it; all else only parts them."""
    at, bt = 0, 0  # how far each was compared: a version can be as long as the file that it stands in
    while True:
        at, bt = _end(_RPM_SEPARATORS, a, at), _end(_RPM_SEPARATORS, b, bt)
        next_a, next_b = a[at : at + 1], b[bt : bt + 1]
        if "~" in (next_a, next_b):
            if next_a != next_b:
                return -1 if next_a == "~" else 1
            at, bt = at + 1, bt + 1
            continue
        if "^" in (next_a, next_b):
            if not next_a or not next_b:
                return -1 if not next_a else 1
            if next_a != next_b:
                return -1 if next_a == "^" else 1
            at, bt = at + 1, bt + 1
            continue
        if not next_a or not next_b:
            return bool(next_a) - bool(next_b)
        kind = _DIGITS if next_a.isdigit() else _LETTERS
        one, other = a[at : _end(kind, a, at)], b[bt : _end(kind, b, bt)]
        if order := _compare_runs(one, other):
            return order
        at, bt = at + len(one), bt + len(other)


def _compare_pacman_part(a: str, b: str) -> int:
    """As rpm's once was, with two rules more: longer separators win, and letters at the end never beat nothing."""
    if a == b:
        return 0
    at, bt = 0, 0
    while at < len(a) and bt < len(b):
        between_a, between_b = _end(_PACMAN_SEPARATORS, a, at) - at, _end(_PACMAN_SEPARATORS, b, bt) - bt
        at, bt = at + between_a, bt + between_b
        if at == len(a) or bt == len(b):
            break
        if between_a != between_b:
            return _sign(between_a - between_b)
        kind = _DIGITS if a[at].isdigit() else _LETTERS
        one, other = a[at : _end(kind, a, at)], b[bt : _end(kind, b, bt)]
        if order := _compare_runs(one, other):
            return order
        at, bt = at + len(one), bt + len(other)
    if at == len(a) and bt == len(b):
        return 0
    return -1 if (at == len(a) and not b[bt].isalpha()) or a[at : at + 1].isalpha() else 1


def _compare_runs(one: str, other: str) -> int:
    """A run of digits or of letters with the run of the same kind in the other version; empty where that has none."""
    if not other:
        return 1 if one.isdigit() else -1
    return _compare_numbers(one, other) if one.isdigit() else _compare_text(one, other)


def _end(pattern: re.Pattern[str], text: str, place: int) -> int:
    match = pattern.match(text, place)
    assert match
    return match.end()


def _compare_numbers(a: str, b: str) -> int:
    """Digits by their value; as text, since int() refuses thousands of digits."""
    a, b = a.lstrip("0"), b.lstrip("0")
    return _sign(len(a) - len(b)) or _compare_text(a, b)


def _compare_text(a: str, b: str) -> int:
    return (a > b) - (a < b)


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


_COMPARE: dict[str, Callable[[str, str], int]] = {
    "dpkg": compare_dpkg,
    "rpm": compare_rpm,
    "apk": compare_apk,
    "pacman": compare_pacman,
}
