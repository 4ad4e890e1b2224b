"""What may lie in a helper's folder, and its removal: entry by entry, never a whole tree."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from ..engine.held_folder import ALIVE
from .journal import FILE, FRESH

if TYPE_CHECKING:
    from collections.abc import Callable

_KINDS: dict[re.Pattern[str], Callable[[os.DirEntry[str]], bool]] = {
    re.compile(r"mount-\d+"): lambda entry: entry.is_dir(follow_symlinks=False),
    # As the folder has it, not stat: that asks what is mounted over it, and a daemon that is stopped never answers.
    re.compile(r"export-\d+"): lambda entry: entry.is_file(follow_symlinks=False),
    re.compile(r"nbd\.sock"): lambda entry: stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode),
    re.compile(r"loop\d+|dm-\d+|md_im-[-\w]+"): lambda entry: stat.S_ISBLK(entry.stat(follow_symlinks=False).st_mode),
    re.compile(rf"{re.escape(FILE)}|{re.escape(FRESH)}"): lambda entry: entry.is_file(follow_symlinks=False),
    re.compile(re.escape(ALIVE)): lambda entry: entry.is_file(follow_symlinks=False),
}


def strangers_in(folder: int) -> list[str]:
    """Names in the helper folder open at ``folder`` of what no helper makes there."""
    return [entry.name for entry in _entries(folder) if not _is_known(entry)]


def remove_contents(folder: int) -> None:
    """Remove everything in the folder but the file ``alive``; nothing may be mounted in it.

    :raises OSError: something is in use, or is no helper's
    """
    for entry in _entries(folder):
        if entry.name not in (ALIVE, FILE) and _is_known(entry):
            remove = os.rmdir if entry.is_dir(follow_symlinks=False) else os.unlink
            remove(entry.name, dir_fd=folder)
    # The records last: while anything is left, they tell what it is.
    with suppress(FileNotFoundError):
        os.unlink(FILE, dir_fd=folder)


def _entries(folder: int) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _is_known(entry: os.DirEntry[str]) -> bool:
    return any(pattern.fullmatch(entry.name) and is_it(entry) for pattern, is_it in _KINDS.items())
