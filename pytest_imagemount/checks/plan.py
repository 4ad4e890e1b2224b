"""From a check file to the checks in it: short forms written out, contradictions refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import CheckFileInvalid
from .document import load_documents, written
from .place import Place, mistake
from .schema import validate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .document import Document, KeyPath

SINGLE = ("os", "kernel-cmdline", "disk", "free-space")
"""The sections that are one check; every other is one for each of its keys."""

_PLAIN = {"state", "why"}
_MODES = ("mode", "max-mode")
_BOUNDS = (("min-size", "size"), ("min-size", "max-size"), ("size", "max-size"), ("min", "max"))


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    :param section: key of the section: ``files``
    :param subject: what in the image it is about: a path, a name; empty for a section that is one check
    :param expect: the long form of what is expected, without ``why``
    :param why: the reason that the user gave, or an empty text
    :param file: the check file, as it is shown
    :param line: its line there
    """

    section: str
    subject: str
    expect: dict[str, Any]
    why: str
    file: str
    line: int

    @property
    def name(self) -> str:
        """``files:/etc/shadow``, ``os``."""
        return f"{self.section}:{self.subject}" if self.subject else self.section

    def text(self, key: str) -> str:
        """What is expected for ``key``, as it is written."""
        return written(self.expect[key])

    def texts(self, key: str) -> list[str]:
        """What is expected for ``key``, a list or one of its items; empty where nothing is."""
        value = self.expect.get(key, [])
        return [written(item) for item in (value if isinstance(value, list) else [value])]


@dataclass(frozen=True, slots=True)
class ImageKey:
    """What a document says about its image; None where it says nothing. ``path`` is absolute."""

    path: Path | None = None
    partition: str | None = None
    format: str | None = None
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The checks of one document."""

    image: ImageKey
    checks: tuple[Check, ...]


def load_plans(path: Path, shown: str | None = None) -> list[Plan]:
    """The plan of each document in the file at ``path``; ``shown`` is its name in messages.

    :raises CheckFileInvalid: with every mistake of the file
    :raises CapabilityMissing: a library of the extra is not installed
    """
    documents = load_documents(path, shown)
    mistakes: list[str] = []
    for document in documents:
        try:
            validate(document)
            _refuse_contradictions(document)
        except CheckFileInvalid as error:
            mistakes += error.mistakes
    if mistakes:
        raise CheckFileInvalid(file=documents[0].file, mistakes=mistakes)
    return [Plan(_image_key(document, path.parent), tuple(_checks(document))) for document in documents]


def _checks(document: Document) -> Iterator[Check]:
    for path, section, subject, value in _entries(document):
        expect = _long_form(section, value)
        why = expect.pop("why", "")
        yield Check(section, subject, expect, why, document.file, document.key_place(path).line)


def _entries(document: Document) -> Iterator[tuple[KeyPath, str, str, Any]]:
    """Path, section, subject and value of each check."""
    for section, value in document.value.items():
        if section == "image":
            continue
        if section in SINGLE:
            yield (section,), section, "", value
            continue
        for subject, entry in value.items():
            yield (section, subject), section, subject, entry


def _long_form(section: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return dict(value)
    if section == "rules":
        return {}
    if section == "free-space":
        return {"min": value}
    if section == "packages" and value not in ("installed", "absent"):
        return {"version": value}
    return {"state": value}


def _refuse_contradictions(document: Document) -> None:
    """What a schema cannot say.

    :raises CheckFileInvalid: naming each
    """
    mistakes: list[tuple[Place, str]] = []
    entries = list(_entries(document))
    if not entries:
        mistakes.append((document.place(()), "there is no check here, only an image"))
    image = document.value.get("image")
    if isinstance(image, dict) and "format" in image and "path" not in image:
        text = "format: is only for a path that is given here; for others there is --image-format"
        mistakes.append((document.key_place(("image", "format")), text))
    for path, section, _, value in entries:
        if not isinstance(value, dict):
            continue
        if set(value) == {"why"} and section != "rules":
            mistakes.append((document.key_place(path), f"{path[-1]}: only a reason is given, and nothing to check"))
        if value.get("state") == "absent":
            for key in (key for key in value if key not in _PLAIN):
                text = f"{key}: of what is to be absent, nothing else can be expected"
                mistakes.append((document.key_place((*path, key)), text))
        mistakes += [(document.place((*path, key)), text) for key, text in _wrong_values(value)]
    if mistakes:
        lines = [mistake(document.file, place, text) for place, text in sorted(mistakes)]
        raise CheckFileInvalid(file=document.file, mistakes=lines)


def _wrong_values(value: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys of ``value`` and what is wrong with each."""
    from .values import parse_mode, parse_size

    for key in _MODES:
        if key in value and parse_mode(written(value[key])) is None:
            yield key, f"{key}: {written(value[key])} is not an octal mode, as 0644"
    for low, high in _BOUNDS:
        if low in value and high in value and parse_size(value[low]) > parse_size(value[high]):
            yield low, f"{low}: {written(value[low])} is above {high}: {written(value[high])}"


def _image_key(document: Document, folder: Path) -> ImageKey:
    value = document.value.get("image", {})
    if isinstance(value, str):
        value = {"path": value}
    given = {key: written(item) for key, item in value.items()}
    path = (folder / given.pop("path")).absolute() if "path" in given else None
    return ImageKey(path, **given)
