"""``imagemount clean``: take down what dead runs left, and, when asked to, what was kept."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import TYPE_CHECKING

from .engine import folders
from .engine.text import printable
from .errors import ImageMountError
from .helper.reclaim import reclaim, reclaim_for
from .helper.report import Item, Report
from .processes import list_held
from .programs import run as run_program
from .terminal import Style

if TYPE_CHECKING:
    import argparse

    from .engine.processes import ProcessId

_END_TIMEOUT = 10.0  # seconds: a helper undoes everything in 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``imagemount clean``."""
    parser.add_argument("--dry-run", action="store_true", help="change nothing, only show what would be done")
    parser.add_argument("--kept", action="store_true", help="also take down what --imagemount-keep has kept")
    parser.add_argument("--cache", action="store_true", help="also remove what compressed images were unpacked to")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Clean and report.

    With ``--json``: ``dry_run``, and the lists ``reclaimed``, ``left`` and ``not_ours``, of objects with ``what`` (what
    is done), ``folder`` (the helper's) and ``reason`` (why it was left alone; else empty).

    :returns: 0 when nothing is left; 1 when something could not be reclaimed
    :raises ImageMountError: neither root nor ``sudo -n``, and there is something to reclaim
    """
    report = Report(args.dry_run)
    if args.kept:
        _end_kept(report)
    report.add(_reclaim(dry_run=args.dry_run))
    if args.cache:
        _empty_cache(report)
    print(json.dumps(report.to_wire(), indent=2) if args.json else render(report, Style.of(sys.stdout)))
    return 1 if report.left else 0


def render(report: Report, style: Style) -> str:
    """The report as text."""
    # What lies in a user's folder is named by that user, and read by root.
    lines = [f"{style.yes} {printable(str(item))}" for item in report.reclaimed]
    lines += [f"{style.no} {printable(str(item))}" for item in report.left]
    lines += [style.dim(printable(f"  not ours any more, left alone: {item}")) for item in report.not_ours]
    if not report.reclaimed and not report.left:
        return "\n".join([*lines, "Nothing to clean."])
    done = "would be done" if report.dry_run else "done"
    summary = f"{len(report.reclaimed)} step{'' if len(report.reclaimed) == 1 else 's'} {done}"
    return "\n".join([*lines, summary + (f", {len(report.left)} left." if report.left else ".")])


def _empty_cache(report: Report) -> None:
    """Remove the caller's own unpacked images. What is mounted of them stays mounted."""
    from .config import Settings
    from .image_cache import ImageCache, cache_folder

    settings = Settings.from_environment()
    folder = cache_folder(settings.cache)
    cache = ImageCache(folder, settings.unpack_limit)
    for path in cache.kept() if report.dry_run else cache.clear():
        report.reclaimed.append(Item(f"remove {path}", str(folder)))


def _reclaim(*, dry_run: bool) -> Report:
    uid = os.geteuid()
    if uid == 0:
        return reclaim_for(uid, dry_run=dry_run)
    report = reclaim(folders.run_folder(), dry_run=dry_run)  # what programs of the user's own left
    served = folders.base_folder() / str(uid)
    if served.is_dir() and any(served.iterdir()):
        report.add(_reclaim_by_helper(dry_run=dry_run))
    return report


def _reclaim_by_helper(*, dry_run: bool) -> Report:
    """As root, through a helper that sudo starts: it takes no more than this from a user."""
    from .client import Client
    from .config import Settings
    from .helper.protocol import Reclaim

    client = Client(Settings.from_environment(), worker="imagemount clean")
    try:
        return Report.from_wire(client.ask(Reclaim(dry_run))["report"])
    finally:
        client.close()


def _end_kept(report: Report) -> None:
    """Tell the helpers that outlive their runs for the sake of kept mounts to end; they undo what they hold."""
    helpers: dict[ProcessId, str] = {}
    for held in list_held(os.geteuid()).held:
        if held.state != "kept":
            continue
        if held.record.owner.alive:
            reason = f"process {held.record.owner.pid}, for which it was kept, still runs: wait for its end"
            report.left.append(Item(f"kept {held.record.mountpoint or held.record.device}", str(held.folder), reason))
        else:
            helpers[held.record.helper] = str(held.folder)
    for helper, folder in helpers.items():
        item = Item(f"end helper {helper.pid} and all that it has kept", folder)
        if report.dry_run or _ended(helper):
            report.reclaimed.append(item)
        else:
            report.left.append(Item(item.what, folder, f"it did not end within {_END_TIMEOUT:.0f} s"))


def _ended(helper: ProcessId) -> bool:
    try:
        descriptor = os.pidfd_open(helper.pid)
    except ProcessLookupError:
        return True
    try:
        if not helper.alive:  # looked at after pidfd_open: the descriptor is of this very process
            return True
        try:
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        except PermissionError:
            run_program(["sudo", "-n", "--", "kill", "-TERM", str(helper.pid)])
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(_END_TIMEOUT * 1000))
    except OSError as error:
        raise ImageMountError(f"helper {helper.pid} cannot be told to end: {error.strerror}") from error
    finally:
        os.close(descriptor)
