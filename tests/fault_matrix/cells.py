"""The cells of the matrix: event, moment, backend, with workers or without; and the combinations that make no sense."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from .events import EVENTS, Event, Moment

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKENDS = ("loop", "fuse", "nbd")
NEEDS = {
    "loop": ("root", "loop", "ext4", "mke2fs"),
    "fuse": ("root", "loop", "fuse", "qemu-img", "ext4", "mke2fs"),
    "nbd": ("root", "nbd-netlink", "qemu", "qemu-img", "ext4", "mke2fs"),
}
_NOBODY_WAITS = "loop and FUSE devices are made when they are asked for: nobody waits for one"
# Where the short run has other rows at two moments, it has these at every one.
_ALWAYS = frozenset({"sigkill", "sigterm", "ctrl-c-twice", "helper-sigkill"})


@dataclass(frozen=True)
class Cell:
    """One run. ``workers``: with ``-n 2``, where another worker has an image mounted meanwhile."""

    event: Event
    moment: Moment
    backend: str
    workers: bool

    def __str__(self) -> str:
        return f"{self.event.name}-{self.moment.name.lower()}-{self.backend}-{'n2' if self.workers else 'plain'}"

    @property
    def reason_against(self) -> str | None:
        """Why this combination makes no sense, None if it does."""
        event = self.event
        if self.backend not in event.only_backends:
            return event.no_backend
        if self.moment not in event.moments:
            return event.no_moment[self.moment]
        if event.only and event.only != ("workers" if self.workers else "plain"):
            return event.no_mode
        if self.moment is Moment.WAITING and self.backend != "nbd":
            return _NOBODY_WAITS
        return None

    @property
    def in_short_run(self) -> bool:
        """Whether it is one of those that run with all other tests: every event, and every moment, with each backend.

        With NBD each event has one moment, which changes from row to row: the lab is ten times slower.
        """
        event = self.event
        if self.workers != (event.only == "workers"):
            return False
        if self.backend == "nbd" or event.only == "workers":
            possible = [moment for moment in event.moments if self.backend == "nbd" or moment is not Moment.WAITING]
            return self.moment is possible[EVENTS.index(event) % len(possible)]
        return event.name in _ALWAYS or self.moment in (Moment.MOUNTED, event.moments[-1])


def every_combination() -> Iterator[Cell]:
    """All of them, also those that make no sense."""
    for event, backend, moment, workers in product(EVENTS, BACKENDS, Moment, (False, True)):
        yield Cell(event, moment, backend, workers)


def cells(*, short: bool = False) -> list[Cell]:
    """Those that make sense, those of one row together."""
    return [cell for cell in every_combination() if cell.reason_against is None and (cell.in_short_run or not short)]


def exclusions() -> list[tuple[str, str]]:
    """What is excluded, in words, and why: every combination that makes no sense is in one of the lines."""
    found: list[tuple[str, str]] = [("any event while waiting for a device, with loop or FUSE", _NOBODY_WAITS)]
    for event in EVENTS:
        if excluded := [backend for backend in BACKENDS if backend not in event.only_backends]:
            found.append((f"{event.title}, with {' or '.join(excluded)}", event.no_backend))
        by_reason: dict[str, list[str]] = {}
        for moment, reason in event.no_moment.items():
            by_reason.setdefault(reason, []).append(moment.value)
        found += [(f"{event.title}, {' or '.join(moments)}", reason) for reason, moments in by_reason.items()]
        if event.only:
            other = "with" if event.only == "plain" else "without"
            found.append((f"{event.title}, {other} -n 2", event.no_mode))
    return found
