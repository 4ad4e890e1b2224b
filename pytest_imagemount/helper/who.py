"""Who stands behind a process id: for the line that tells a user whom they wait for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..engine.processes import command_of
from ..engine.text import elapsed, printable

if TYPE_CHECKING:
    from collections.abc import Iterable


def who_are(pids: Iterable[int]) -> tuple[str, ...]:
    """A line for each process: the test for which it holds images, where it is a helper, else its command.

    The words are those of other users, who may want a terminal to do more than show them.
    """
    # Imported here: only those who wait need it.
    from ..processes import list_held

    tests: dict[int, list[str]] = {}
    for held in list_held(os.geteuid()).held:
        record = held.record
        who = f"{record.worker or f'pid {record.owner.pid}'}, {record.test}, {elapsed(record.since)}"
        tests.setdefault(record.helper.pid, []).append(who)
    lines = ("; ".join(tests.get(pid) or [f"pid {pid} ({command_of(pid)})"]) for pid in pids)
    return tuple(map(printable, lines))
