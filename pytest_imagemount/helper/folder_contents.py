"""What may lie in a helper's folder, and its removal: entry by entry, never a whole tree."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from ..engine.held_folder import ALIVE
from .journal import FOLDER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_KINDS: dict[re.Pattern[str], Callable[[os.DirEntry[str]], bool]] = {
    re.compile(r"mount-\d+"): lambda entry: entry.is_dir(follow_symlinks=False),
    # As the folder has it, not stat: that asks what is mounted over it, and a daemon that is stopped never answers.
    re.compile(r"export-\d+"): lambda entry: entry.is_file(follow_symlinks=False),
    re.compile(r"nbd\.sock"): lambda entry: stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode),
    re.compile(r"loop\d+"): lambda entry: stat.S_ISBLK(entry.stat(follow_symlinks=False).st_mode),
    re.compile(re.escape(FOLDER)): lambda entry: entry.is_dir(follow_symlinks=False),
    re.compile(re.escape(ALIVE)): lambda entry: entry.is_file(follow_symlinks=False),
}
_RECORD = re.compile(r"\d+\.(json|new)")


def strangers_in(folder: int) -> list[str]:
    """Names in the helper folder open at ``folder`` of what no helper makes there."""
    strangers = [entry.name for entry in _entries(folder) if not _is_known(entry)]
    with suppress(OSError):
        journal = _open_journal(folder)
        try:
            names = sorted(os.listdir(journal))  # noqa: PTH208  (of a descriptor)
            strangers += [f"{FOLDER}/{name}" for name in names if not _RECORD.fullmatch(name)]
        finally:
            os.close(journal)
    return strangers


def remove_contents(folder: int) -> None:
    """Remove everything in the folder but the file ``alive``; nothing may be mounted in it.

    :raises OSError: something is in use, or is no helper's
    """
    for entry in _entries(folder):
        if entry.name not in (ALIVE, FOLDER) and _is_known(entry):
            remove = os.rmdir if entry.is_dir(follow_symlinks=False) else os.unlink
            remove(entry.name, dir_fd=folder)
    # The records last: while anything is left, they tell what it is.
    with suppress(FileNotFoundError):
        journal = _open_journal(folder)
        try:
            for record in os.listdir(journal):  # noqa: PTH208  (of a descriptor)
                os.unlink(record, dir_fd=journal)
        finally:
            os.close(journal)
        os.rmdir(FOLDER, dir_fd=folder)


def remove_records(folder: int, numbers: Iterable[int | None]) -> None:
    """Remove the records of the mounts ``numbers``, which are wholly taken down."""
    with suppress(FileNotFoundError):
        journal = _open_journal(folder)
        try:
            for number in numbers:
                with suppress(FileNotFoundError):
                    os.unlink(f"{number}.json", dir_fd=journal)
        finally:
            os.close(journal)


def _entries(folder: int) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_known(entry: os.DirEntry[str]) -> bool:
    return any(pattern.fullmatch(entry.name) and is_it(entry) for pattern, is_it in _KINDS.items())


def _open_journal(folder: int) -> int:
    return os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
