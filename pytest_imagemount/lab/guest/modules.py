"""Kernel modules, loaded without kmod: a machine that is a container has neither ``modprobe`` nor /lib/modules.

The tables are those that depmod wrote beside the modules: modules.dep(5), modules.alias, modules.softdep.
"""

# ruff: noqa: PTH112, PTH123
# pathlib is dear to import here.
from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress

from .kernel import load_module_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MODULES = "/usr/lib/uml/modules"
"""Where package user-mode-linux keeps the modules, a folder for each kernel release."""


class Modules:
    """The modules of one kernel release, in ``folder``."""

    def __init__(self, folder: str, sys_module: str = "/sys/module") -> None:
        self._folder = folder
        self._sys_module = sys_module
        self._files: dict[str, tuple[str, list[str]]] = {}
        for line in self._lines("modules.dep"):
            path, _, needed = line.partition(":")
            self._files[_name_of(path)] = path, needed.split()

    def _lines(self, table: str) -> Iterator[str]:
        try:
            with open(f"{self._folder}/{table}", encoding="ascii", errors="replace") as lines:
                yield from lines
        except FileNotFoundError:
            return

    def resolve(self, wanted: str) -> list[str]:
        """Names of the modules that ``wanted`` stands for: itself, or those that have it as an alias."""
        name = _plain(wanted)
        if name in self._files:
            return [name]
        found = []
        for line in self._lines("modules.alias"):
            words = line.split()
            if len(words) == 3 and words[0] == "alias" and _matches(_plain(words[1]), name):
                found.append(_plain(words[2]))
        return found

    def load(self, wanted: str, parameters: str = "") -> None:
        """Load what ``wanted`` stands for and what that needs; what is loaded, or built in, stays as it is.

        :raises OSError: the kernel has no such module (``ENOENT``), or refused it
        """
        names = self.resolve(wanted)
        if not names and not os.path.isdir(f"{self._sys_module}/{_plain(wanted)}"):
            raise FileNotFoundError(errno.ENOENT, "no such kernel module", wanted)
        for name in names:
            self._load_one(name, parameters, set())

    def _load_one(self, name: str, parameters: str, under_way: set[str]) -> None:
        if name in under_way or os.path.isdir(f"{self._sys_module}/{name}") or name not in self._files:
            return
        under_way.add(name)
        path, needed = self._files[name]
        for other in self._wanted_before(name):
            for resolved in self.resolve(other):
                self._load_one(resolved, "", under_way)
        # depmod lists the most dependent one first.
        for file in reversed(needed):
            self._load_one(_name_of(file), "", under_way)
        with suppress(FileExistsError):  # another process was faster
            load_module_file(f"{self._folder}/{path}", parameters)

    def _wanted_before(self, name: str) -> Iterator[str]:
        for line in self._lines("modules.softdep"):
            words = line.split()
            if len(words) > 2 and words[0] == "softdep" and _plain(words[1]) == name and words[2] == "pre:":
                yield from (word for word in words[3:] if not word.endswith(":"))


def _name_of(path: str) -> str:
    return _plain(path.rpartition("/")[2].partition(".ko")[0])


def _plain(name: str) -> str:
    """Module names read the same with ``-`` and ``_``."""
    return name.replace("-", "_")


def _matches(pattern: str, name: str) -> bool:
    """Whether alias ``pattern`` covers ``name``; most aliases are plain, and fnmatch is dear to import."""
    plain = min((pattern.index(sign) for sign in "*?[" if sign in pattern), default=-1)
    if plain < 0:
        return pattern == name
    if not name.startswith(pattern[:plain]):
        return False
    from fnmatch import fnmatchcase

    return fnmatchcase(name, pattern)


def running_modules() -> Modules:
    """The modules of the running kernel."""
    return Modules(f"{MODULES}/{os.uname().release}")


def main(arguments: Sequence[str]) -> int:
    """What the kernel runs as ``/proc/sys/kernel/modprobe``, as in ``modprobe -q -- fs-vfat``."""
    modules = running_modules()
    failed = 0
    for wanted in (word for word in arguments if not word.startswith("-")):
        try:
            modules.load(wanted)
        except OSError as error:
            failed = 1
            sys.stderr.write(f"{wanted}: {error.strerror}\n")
    return failed
