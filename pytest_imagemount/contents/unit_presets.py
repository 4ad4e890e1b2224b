"""systemd.preset(5): what the distribution, or the administrator, wants to be enabled."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from . import unit_names
from .reading import read_text
from .unit_folders import PRESET_FOLDERS, configuration_files

if TYPE_CHECKING:
    from ..image_path import ImagePath

PresetState = Literal["enabled", "disabled", "ignored"]

_MOST_BYTES = 1 << 20  # a pattern takes fifty times its length of memory

_STATES: dict[str, PresetState] = {"enable": "enabled", "disable": "disabled", "ignore": "ignored"}
_RULE = re.compile(r"(enable|disable|ignore)(?:[ \t]+(.*))?")


@dataclass(frozen=True)
class _Rule:
    pattern: re.Pattern[str]
    state: PresetState


class Presets:
    """The rules of all preset files, in the order in which they are asked.

    ``ignore`` is a rule of systemd 254 and newer; older ones pass over it.
    """

    def __init__(self, root: ImagePath) -> None:
        self._rules: list[_Rule] = []
        for path in configuration_files([root / folder for folder in PRESET_FOLDERS], ".preset"):
            # A link to /dev/null, or an empty file, takes a file of a later folder away.
            text = read_text(path, _MOST_BYTES) if path.is_file() else None
            for line in (text or "").split("\n"):
                self._add(line.strip())

    def state_of(self, name: str) -> PresetState:
        """The first rule that matches; ``enabled`` where none does, as systemd has it."""
        return next((rule.state for rule in self._rules if rule.pattern.match(name)), "enabled")

    def _add(self, line: str) -> None:
        match = None if line.startswith(("#", ";")) else _RULE.fullmatch(line)
        if match is None:
            return
        verb, pattern = match[1], match[2] or ""
        if verb == "enable":
            # "enable getty@.service tty1 tty2" names instances; a rule for a plain name with more words is none.
            pattern, *instances = pattern.split() or [""]
            if instances and not (unit_names.is_valid(pattern) and unit_names.is_template(pattern)):
                return
        translated = fnmatch.translate(pattern.replace("[^", "[!"))
        self._rules.append(_Rule(re.compile(translated), _STATES[verb]))
