"""GRUB's menu: ``grub.cfg``, read for its entries and not run."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from .assignments import parse_assignments
from .boot_entry import MOST_BYTES, BootEntry, Bootloader, boot_folders, one_line
from .boot_specification import text_entries
from .reading import entries, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..image_path import ImagePath

CONFIGURATIONS = ("grub/grub.cfg", "grub2/grub.cfg")

_LONGEST_LINE = 1 << 15  # a kernel takes no command line of an eighth of this, and shlex's time grows with the square
_KERNEL_COMMANDS = {"linux", "linux16", "linuxefi"}
_INITRD_COMMANDS = {"initrd", "initrd16", "initrdefi"}
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def read_grub(root: ImagePath) -> Bootloader | None:
    """The menu of the first ``grub.cfg`` that has entries; None where there is no ``grub.cfg``.

    Variables are filled in where the file, or ``grubenv``, sets them to one value only; others stay as they are.
    ``blscfg`` stands for the entries of the Boot Loader Specification.
    """
    first: Bootloader | None = None
    for path in _configurations(root):
        text = read_text(path, MOST_BYTES)
        if text is None:
            continue
        found = Bootloader("grub", str(path), tuple(_entries(root, path, text)))
        if found.entries:
            return found
        first = first or found
    return first


def _configurations(root: ImagePath) -> Iterator[ImagePath]:
    """Those of the boot partition first: the ones in the ESP often only load them."""
    for folder in boot_folders(root):
        yield from (folder / place for place in CONFIGURATIONS)
    for folder in boot_folders(root):
        for vendor in entries(folder / "EFI"):
            yield folder / "EFI" / vendor.name / "grub.cfg"


def _entries(root: ImagePath, path: ImagePath, text: str) -> Iterator[BootEntry]:
    commands = list(_commands(text))
    variables = _variables(path, commands)
    current: BootEntry | None = None
    specified = False  # the second time the menu would have the same entries again
    for command, *arguments in commands:
        if command == "menuentry" and arguments:
            if current is not None:
                yield current
            current = BootEntry(_expand(arguments[0], variables), None, (), "")
        elif command == "blscfg" and not specified:
            specified = True
            yield from _specified_entries(root, variables)
        elif current is not None and arguments and command in _KERNEL_COMMANDS:
            linux, *options = (_expand(argument, variables) for argument in arguments)
            current = BootEntry(current.title, linux, current.initrd, one_line(" ".join(options)))
        elif current is not None and command in _INITRD_COMMANDS:
            initrd = tuple(_expand(argument, variables) for argument in arguments)
            current = BootEntry(current.title, current.linux, initrd, current.options)
    if current is not None:
        yield current


def _specified_entries(root: ImagePath, variables: dict[str, str]) -> Iterator[BootEntry]:
    for folder in boot_folders(root):
        found = text_entries(folder)
        for entry in found:
            initrd = tuple(_expand(each, variables) for each in entry.initrd)
            yield BootEntry(entry.title, entry.linux, initrd, one_line(_expand(entry.options, variables)))
        if found:
            return


def _commands(text: str) -> Iterator[list[str]]:
    for line in text.replace("\\\n", " ").split("\n"):
        try:
            words = shlex.split(line, comments=True) if len(line) < _LONGEST_LINE else []
        except ValueError:  # a quote that goes on in the next line, as no kernel line of a menu has it
            words = line.split()
        if words:
            yield words


def _variables(path: ImagePath, commands: list[list[str]]) -> dict[str, str]:
    """Those that have one value wherever they are set."""
    values: dict[str, set[str]] = {}
    for name, value in parse_assignments(read_text(path.with_name("grubenv"), MOST_BYTES) or "").items():
        values.setdefault(name, set()).add(value)
    for command, *arguments in commands:
        if command == "set" and arguments:
            name, equals, value = arguments[0].partition("=")
            if equals:
                values.setdefault(name, set()).add(value)
    return {name: next(iter(found)) for name, found in values.items() if len(found) == 1}


def _expand(text: str, variables: dict[str, str]) -> str:
    """``text`` with the variables filled in, as long as they make it no longer than a line may be."""
    room = _LONGEST_LINE

    def value(match: re.Match[str]) -> str:
        nonlocal room
        found = variables.get(match[1] or match[2])
        if found is None or len(found) > room:
            return match[0]
        room -= len(found)
        return found

    return _VARIABLE.sub(value, text)
