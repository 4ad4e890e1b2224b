"""``imagemount ps``: which images are mounted, for whom, since when; read from the journals of the helpers."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .engine import folders
from .engine.held_folder import TOKEN, is_held
from .engine.text import printable
from .errors import describe_part
from .helper.journal import read_journal
from .terminal import Style

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from .helper.record import Record

_DAY = 86400


@dataclass(frozen=True, slots=True)
class Held:
    """One mount in a journal. ``state``: ``live``; ``kept`` after the end of its run; ``dead``: its helper is gone."""

    record: Record
    state: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Listing:
    """What the journals say, the oldest first, and a line for each thing in them that is no helper's."""

    held: tuple[Held, ...]
    strange: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``imagemount ps``."""
    parser.add_argument("--json", action="store_true", help="print the list as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the list; the exit status is 0."""
    listing = list_held(os.geteuid())
    now = time.time()
    print(json.dumps(to_json(listing, now), indent=2) if args.json else render(listing, Style.of(sys.stdout), now))
    return 0


def list_held(uid: int) -> Listing:
    """What helpers hold or left for user ``uid``; for root what they hold or left for every user. Changes nothing."""
    base = folders.base_folder()
    users = sorted(base.glob("[0-9]*")) if uid == 0 else [base / str(uid)]
    held: list[Held] = []
    strange: list[str] = []
    for user in users:
        for folder in _entries(user):
            found, unreadable = _read(folder)
            held += found
            strange += unreadable
    return Listing(tuple(sorted(held, key=lambda one: one.record.since)), tuple(strange))


def to_json(listing: Listing, now: float) -> dict[str, Any]:
    """The list as JSON values.

    ``mounts`` is a list of objects with the keys ``state`` (``live``, ``kept``, ``dead``), ``pid`` and ``started`` of
    the process for which it is mounted, ``helper`` (``pid``, ``started``), ``worker``, ``test``, ``image``, ``format``,
    ``partition`` (number, text or null), ``mode``, ``backend``, ``device``, ``mountpoint`` (empty for an attached
    device, and all four while mounting goes on), ``since``, ``age`` and ``folder``. Times are in seconds since the
    epoch, ``age`` in seconds. ``strange`` is a list of lines about what lies there and no helper made.
    """
    return {"mounts": [_mount_json(held, now) for held in listing.held], "strange": list(listing.strange)}


def render(listing: Listing, style: Style, now: float) -> str:
    """The list as text."""
    lines: list[str] = []
    for _, group in groupby(_by_process(listing), key=_process_key):
        lines += [*_holder_lines(list(group), style, now), ""]
    lines += [style.dim(printable(f"left alone: {line}")) for line in listing.strange]
    return "\n".join([*lines, _summary(listing)])


def _entries(user: Path) -> list[Path]:
    try:
        return sorted(entry for entry in user.iterdir() if TOKEN.fullmatch(entry.name))
    except OSError:  # nobody has mounted anything for this user
        return []


def _read(folder: Path) -> tuple[list[Held], list[str]]:
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:  # just removed
        return [], []
    except OSError as error:
        return [], [f"{folder}: {error.strerror}"]
    try:
        owner = os.fstat(fd).st_uid
        if owner not in (0, os.geteuid()) or (owner != 0 and os.geteuid() == 0):
            return [], [f"{folder}: it belongs to user {owner}: no helper made it"]
        records, unreadable = read_journal(fd, folder.name, owner=owner)
        held = [Held(record, _state(record, fd), folder) for record in records]
    finally:
        os.close(fd)
    return held, [f"{folder}/{file.name}: no record of ours: {file.reason}" for file in unreadable]


def _state(record: Record, folder: int) -> str:
    # A pid says nothing about a helper in another pid namespace, its lock does.
    if not record.helper.alive and not is_held(folder):
        return "dead"
    return "kept" if record.kept else "live"


def _mount_json(held: Held, now: float) -> dict[str, Any]:
    record = held.record
    names = ("worker", "test", "image", "format", "partition", "mode", "backend", "device", "mountpoint", "since")
    return {
        "state": held.state,
        "pid": record.owner.pid,
        "started": record.owner.started,
        "helper": {"pid": record.helper.pid, "started": record.helper.started},
        **{name: getattr(record, name) for name in names},
        "age": max(0.0, now - record.since),
        "folder": str(held.folder),
    }


def _process_key(held: Held) -> tuple[int, int, str]:
    return held.record.owner.pid, held.record.owner.start, held.record.token


def _by_process(listing: Listing) -> list[Held]:
    """Grouped by process, the processes in the order of their oldest mount."""
    order: dict[tuple[int, int, str], int] = {}
    for held in listing.held:
        order.setdefault(_process_key(held), len(order))
    return sorted(listing.held, key=lambda held: order[_process_key(held)])


def _holder_lines(group: list[Held], style: Style, now: float) -> Iterator[str]:
    record = group[0].record
    states = {held.state for held in group}
    whole = "dead" if "dead" in states else "live" if "live" in states else "kept"
    who = f"process {record.owner.pid}" + (f", worker {record.worker}" if record.worker else "")
    state = {"live": style.good("live"), "kept": style.bold("kept"), "dead": style.bad("dead")}[whole]
    detail = f"started {_clock(record.owner.started, now)}, helper {record.helper.pid}"
    yield f"{style.no if whole == 'dead' else style.yes} {style.bold(printable(who))}  {state}  {style.dim(detail)}"
    rows = [_row(held, now) for held in group]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for held, row in zip(group, rows, strict=True):
        yield "    " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if held.record.test:
            yield style.dim(printable(f"      for {held.record.test}"))
        if held.record.mountpoint:
            yield style.dim(printable(f"      at  {held.record.mountpoint}"))


def _row(held: Held, now: float) -> tuple[str, ...]:
    record = held.record
    image = Path(record.image).name + ("" if record.partition is None else f", {describe_part(record.partition)}")
    access = f"{record.format} {record.mode}".strip() + (" (kept)" if record.kept else "")
    return printable(image), printable(access), printable(record.device or "attaching"), _age(now - record.since)


def _clock(moment: float, now: float) -> str:
    form = "%H:%M:%S" if now - moment < _DAY else "%Y-%m-%d %H:%M"
    return time.strftime(form, time.localtime(moment))


def _age(seconds: float) -> str:
    seconds = max(0, int(seconds))
    for unit, size in (("d", _DAY), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _summary(listing: Listing) -> str:
    if not listing.held:
        return "Nothing is mounted."
    counts = {state: sum(held.state == state for held in listing.held) for state in ("live", "kept", "dead")}
    total = len(listing.held)
    text = f"{total} image{'' if total == 1 else 's'}: " + ", ".join(f"{n} {state}" for state, n in counts.items() if n)
    if counts["dead"]:
        text += "\nTake down what the dead ones left: imagemount clean   (see it first: imagemount clean --dry-run)"
    if counts["kept"]:
        text += "\nTake down what was kept: imagemount clean --kept"
    return text
