"""A check file as values with their places.

PyYAML's composer gives the tree of nodes with line and column, and constructs nothing: no tag of a file can call
anything. The values are made here, so that three faults of YAML 1.1 do not reach users: ``no`` is text and not false,
``0644`` is what was written and not 420, ``3.10`` is not 3.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import CapabilityMissing, CheckFileInvalid
from .place import Place, mistake

if TYPE_CHECKING:
    from pathlib import Path

    import yaml

MOST_BYTES = 256 * 1024
MOST_VALUES = 20_000
_DEEPEST = 20

# The numbers of JSON and of YAML 1.2; what has a leading zero (a mode) is text.
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)\.[0-9]+")
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}

KeyPath = tuple[str | int, ...]
"""Keys and indexes from the top of a document to a value."""


class WrittenInt(int):
    """A whole number that knows how it was written."""

    text: str


class WrittenFloat(float):
    """A decimal number that knows how it was written: ``22.10``."""

    text: str


def written(value: object) -> str:
    """``value`` as it stands in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(getattr(value, "text", value))


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: its value, of dict, list, text, numbers, bool and None, and where each part of it stands."""

    file: str
    value: Any
    places: dict[KeyPath, Place] = field(repr=False)
    keys: dict[KeyPath, Place] = field(repr=False)

    def place(self, path: KeyPath) -> Place:
        """Where the value at ``path`` stands; of what is not there, the nearest above it."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def key_place(self, path: KeyPath) -> Place:
        """Where the key of the value at ``path`` stands."""
        return self.keys.get(path) or self.place(path)


def load_documents(path: Path, shown: str | None = None) -> list[Document]:
    """The documents of a file.

    :param shown: the name of the file in messages
    :raises CheckFileInvalid: it cannot be read, is no YAML, names a key twice, has tags, or is too large: as text, or
        by its aliases
    :raises CapabilityMissing: PyYAML is not installed
    """
    shown = shown or str(path)
    yaml = _yaml()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _invalid(shown, Place(1, 1), f"cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise _invalid(shown, Place(1, 1), f"the file is larger than {MOST_BYTES // 1024} KiB")
    try:
        nodes = list(yaml.compose_all(data.decode("utf-8"), Loader=yaml.BaseLoader))
    except UnicodeDecodeError:
        raise _invalid(shown, Place(1, 1), "the text is not UTF-8") from None
    except RecursionError:
        raise _invalid(shown, Place(1, 1), "the file is nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        text = ", ".join(str(part) for part in (error.problem, error.context) if part)
        raise _invalid(shown, _place(mark) if mark else Place(1, 1), f"not YAML: {text}") from None
    except yaml.YAMLError as error:
        raise _invalid(shown, Place(1, 1), f"not YAML: {error}") from None
    documents = [_Builder(shown, node).document() for node in nodes if node is not None]
    if not documents:
        raise _invalid(shown, Place(1, 1), "the file is empty: it checks nothing")
    return documents


class _Builder:
    """Makes the values of one document from its nodes, counting them: an alias stands for all that it repeats."""

    def __init__(self, file: str, root: yaml.Node) -> None:
        self._file, self._root = file, root
        self._places: dict[KeyPath, Place] = {}
        self._keys: dict[KeyPath, Place] = {}

    def document(self) -> Document:
        value = self._build(self._root, ())
        return Document(self._file, value, self._places, self._keys)

    def _build(self, node: Any, path: KeyPath) -> Any:
        place = _place(node.start_mark)
        self._places[path] = place
        if len(self._places) > MOST_VALUES:
            raise _invalid(self._file, place, f"more than {MOST_VALUES:,} values, those that aliases repeat included")
        if len(path) > _DEEPEST:
            raise _invalid(self._file, place, "nested too deeply")
        if node.tag not in _TAGS:
            raise _invalid(self._file, place, f"tags ({node.tag}) have no meaning here")
        if node.id == "scalar":
            return scalar(node.value) if node.style is None else node.value
        if node.id == "sequence":
            return [self._build(child, (*path, index)) for index, child in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: Any, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, child in node.value:
            place = _place(key.start_mark)
            if key.id != "scalar":
                raise _invalid(self._file, place, "a key must be text")
            if key.value == "<<" and key.style is None:
                reason = "merge keys (<<) have no meaning here; an alias stands for a whole value"
                raise _invalid(self._file, place, reason)
            below = (*path, key.value)
            if key.value in result:
                before = self._keys[below].line
                raise _invalid(self._file, place, f"key {key.value!r} is there twice, first in line {before}")
            self._keys[below] = place
            result[key.value] = self._build(child, below)
        return result


def scalar(text: str) -> Any:
    """The value of ``text`` as a scalar without quotes."""
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    number: WrittenInt | WrittenFloat
    if _INTEGER.fullmatch(text) and len(text) < 20:
        number = WrittenInt(text)
    elif _DECIMAL.fullmatch(text) and len(text) < 40:
        number = WrittenFloat(text)
    else:
        return text
    number.text = text
    return number


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _invalid(file: str, place: Place, text: str) -> CheckFileInvalid:
    return CheckFileInvalid(file=file, mistakes=[mistake(file, place, text)])


def _yaml() -> Any:
    try:
        import yaml
    except ImportError:
        raise missing_extra("PyYAML") from None
    return yaml


def missing_extra(library: str) -> CapabilityMissing:
    """What to do where a library of the extra is not installed."""
    return CapabilityMissing(
        capability="imagecheck", reason=f"{library} is not installed", hint="pip install 'pytest-imagemount[checks]'"
    )
