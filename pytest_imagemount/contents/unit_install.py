"""The ``[Install]`` section of a unit file and of its drop-ins: what `systemctl enable` would make."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from . import unit_names

_LISTS = ("Alias", "WantedBy", "RequiredBy")
_SPECIFIER = re.compile(r"%(.)", re.DOTALL)
_WHITESPACE = " \t\n\r"
_LINE_END = re.compile(rb"\r\n|\n\r|[\r\n\0]")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\\"']")
_LONGEST_LINE = 1 << 20


class BadUnit(Exception):
    """systemd cannot load the unit: `systemctl` lists it as ``bad``."""


@dataclass
class Install:
    """What the ``[Install]`` sections of unit ``name`` say, drop-ins included."""

    name: str
    aliases: list[str] = field(default_factory=list)
    wanted_by: list[str] = field(default_factory=list)
    required_by: list[str] = field(default_factory=list)
    also: list[str] = field(default_factory=list)
    default_instance: str | None = None

    @property
    def has_rules(self) -> bool:
        """Whether enabling the unit makes a link."""
        return bool(self.aliases or self.wanted_by or self.required_by)

    def own_names(self) -> set[str]:
        """The names under which a link that enables the unit may stand."""
        names = {self.name, *self.aliases}
        if self.default_instance and unit_names.is_template(self.name):
            names.add(unit_names.with_instance(self.name, self.default_instance) or self.name)
        return names

    def read(self, data: bytes) -> None:
        """Take in a unit file or a drop-in.

        :raises BadUnit: systemd would not read on
        """
        section = ""
        for line in _logical_lines(data):
            if line.startswith("["):
                if not line.endswith("]") or _UNSAFE.search(line):
                    raise BadUnit(f"section header {line!r}")
                section = line[1:-1]
            elif section == "Install":
                key, equals, value = line.partition("=")
                if equals and key:
                    self._assign(key.strip(_WHITESPACE), value.strip(_WHITESPACE))

    def _assign(self, key: str, value: str) -> None:
        if key in _LISTS:
            if key == "Alias" and unit_names.type_of(self.name) not in unit_names.WITH_ALIASES:
                return
            words = {"Alias": self.aliases, "WantedBy": self.wanted_by, "RequiredBy": self.required_by}[key]
            if value:
                words += _quoted_words(value)
            else:
                words.clear()
        elif key == "Also":
            for word in _escaped_words(value):
                name = self._expanded(word)
                if not unit_names.is_valid(name):
                    raise BadUnit(f"Also={word}")
                self.also.append(name)
        elif key == "DefaultInstance" and unit_names.is_template(self.name):
            instance = self._expanded(value)
            if instance and unit_names.with_instance(self.name, instance) is None:
                raise BadUnit(f"DefaultInstance={value}")
            self.default_instance = instance or None

    def _expanded(self, text: str) -> str:
        """With the specifiers replaced that are made of the unit's name; those of the running machine stay."""
        prefix, instance = unit_names.prefix_of(self.name), unit_names.instance_of(self.name)
        default = self.default_instance if unit_names.is_template(self.name) else None
        name = (unit_names.with_instance(self.name, default) if default else None) or self.name
        values = {
            "i": instance or self.default_instance or "",
            "j": prefix.rpartition("-")[2],
            "n": name,
            "N": name.rpartition(".")[0],
            "p": prefix,
            "%": "%",
        }
        return _SPECIFIER.sub(lambda match: values.get(match[1], match[0]), text)


def _logical_lines(data: bytes) -> list[str]:
    """Lines without comments and empty ones, those that end in a backslash joined.

    :raises BadUnit: one is not UTF-8, or is too long
    """
    found: list[str] = []
    joined: list[bytes] = []
    length = 0
    for raw in _LINE_END.split(data.removeprefix(b"\xef\xbb\xbf")):
        if raw.lstrip(b" \t").startswith((b"#", b";")):
            continue
        length += len(raw)
        if length > _LONGEST_LINE:
            raise BadUnit("a line is too long")
        if (len(raw) - len(raw.rstrip(b"\\"))) % 2:
            joined.append(raw[:-1] + b" ")
            continue
        found.append(_text(b"".join([*joined, raw])))
        joined, length = [], 0
    found.append(_text(b"".join(joined)))
    return [line for line in found if line]


def _text(line: bytes) -> str:
    try:
        return line.decode().strip(_WHITESPACE)
    except UnicodeDecodeError:
        raise BadUnit("a line is not UTF-8") from None


def _quoted_words(value: str) -> list[str]:
    """Words, with quotes taken away; up to the one whose quote does not end."""
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    for character in value:
        if quote:
            if character == quote:
                quote = ""
            else:
                word = _with(word, character)
        elif character in "\"'":
            quote, word = character, _with(word, "")
        elif character in _WHITESPACE:
            words += [] if word is None else ["".join(word)]
            word = None
        else:
            word = _with(word, character)
    return words if quote or word is None else [*words, "".join(word)]


def _escaped_words(value: str) -> list[str]:
    """Words, in which a backslash takes the next character as it is.

    :raises BadUnit: nothing follows a backslash
    """
    words: list[str] = []
    word: list[str] | None = None
    characters = iter(value)
    for character in characters:
        if character == "\\":
            following = next(characters, None)
            if following is None:
                raise BadUnit("a backslash at the end")
            word = _with(word, following)
        elif character in _WHITESPACE:
            words += [] if word is None else ["".join(word)]
            word = None
        else:
            word = _with(word, character)
    return words if word is None else [*words, "".join(word)]


def _with(word: list[str] | None, character: str) -> list[str]:
    """The characters of a word that goes on, or begins, with one more; a list, since text would be copied each time."""
    found = [] if word is None else word
    found.append(character)
    return found
