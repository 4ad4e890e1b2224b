"""``fstab``: the entries of /etc/fstab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .problem import Problem, value_problems
from .values import show_list

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..contents.fstab import FstabEntry
    from ..shared_images import SharedImage
    from .plan import Check


def check_fstab(check: Check, shared: SharedImage) -> Iterator[Problem]:
    """The problems of one entry of ``fstab``."""
    wanted = _without_slash(check.subject)
    entries = [entry for entry in shared.image.fstab if subject_of(entry) == wanted]
    if check.expect.get("state") == "absent":
        for entry in entries:
            yield Problem("state", "absent", f"{entry.source} of type {entry.fstype}")
        return
    if not entries:
        there = show_list(dict.fromkeys(map(subject_of, shared.image.fstab)))
        yield Problem("state", "exists", f"no entry; there are entries for: {there}")
        return
    # Of several for one mount point, systemd and mount take the first; several swaps are all used.
    problems = [list(_entry_problems(check, entry)) for entry in entries]
    yield from min(problems, key=len) if check.subject == "swap" else problems[0]


def subject_of(entry: FstabEntry) -> str:
    """What a check file calls the entry: its mount point, or ``swap``."""
    if entry.fstype == "swap":
        return "swap"
    return _without_slash(entry.target)


def _without_slash(target: str) -> str:
    return target.rstrip("/") or "/"


def _entry_problems(check: Check, entry: FstabEntry) -> Iterator[Problem]:
    yield from value_problems(check, {"source": entry.source, "type": entry.fstype, "pass": str(entry.passno)})
    for option in check.texts("options"):
        if option not in entry.options:
            yield Problem("options", option, show_list(entry.options))
    for option in check.texts("not-options"):
        if option in entry.options:
            yield Problem("not-options", f"no {option}", show_list(entry.options))
