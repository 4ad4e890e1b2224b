"""Taking down what dead helpers left: exactly what is theirs, each thing looked at again before it is touched.

A folder is reclaimed when the lock of its file ``alive`` is free: the kernel drops the lock at the helper's death,
however it died. Whoever reclaims holds that lock meanwhile, so that two never meet in one folder.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from ..engine import folders
from ..engine.held_folder import UNFINISHED, AbandonedFolder, NotTaken, sweep_unfinished, take_over
from ..engine.processes import start_time
from ..errors import CapabilityMissing, ImageMountError
from .journal import strike_out
from .plan import make_plan
from .report import Item, Report

if TYPE_CHECKING:
    from pathlib import Path

    from .plan import Step

_CLIENT_SOCKET = re.compile(r"client-(\d+)-.*")
_UNFINISHED = re.compile(re.escape(UNFINISHED) + r"(\d+)-[0-9a-f]{8}")


def reclaim_for(uid: int, *, dry_run: bool) -> Report:
    """Reclaim what helpers of user ``uid`` left; for root what those of every user left."""
    base = folders.base_folder() if uid == 0 == os.geteuid() else folders.served_folder(uid)
    return reclaim(base, dry_run=dry_run)


def reclaim(base: Path, *, dry_run: bool) -> Report:
    """Reclaim what dead helpers left.

    :param base: the folder in which the helpers' folders are, or root's with one such folder for each user
    :param dry_run: change nothing, and report what would be done
    """
    report = Report(dry_run)
    for folder in sorted(base.glob("[0-9]*")) if base == folders.base_folder() else [base]:
        with suppress(FileNotFoundError):
            _reclaim_user(folder, report)
    if not dry_run:
        from ..engine.nbd.pool import NbdPool, lock_folder

        with suppress(CapabilityMissing):  # told to who needs a device of it; a loop device does not
            NbdPool(lock_folder(), 0).forget_the_dead()
    return report


def _reclaim_user(folder: Path, report: Report) -> None:
    parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in sorted(os.listdir(parent)):  # noqa: PTH208  (of a descriptor)
            if _is_transient(name):
                if not report.dry_run:
                    _sweep(name, parent)
                continue
            try:
                abandoned = take_over(name, parent)
            except NotTaken as error:
                if not error.harmless:
                    report.left.append(Item(str(folder / name), str(folder / name), error.reason))
                continue
            try:
                _reclaim_folder(abandoned, report)
            finally:
                abandoned.close()
    finally:
        os.close(parent)


def _reclaim_folder(folder: AbandonedFolder, report: Report) -> None:
    where = str(folder.path)
    plan = make_plan(folder)
    report.left.extend(Item(what, where, reason) for what, reason in plan.left)
    report.not_ours.extend(Item(what, where, reason) for what, reason in plan.not_ours)
    if report.dry_run:
        report.reclaimed.extend(Item(step.what, where) for step in plan.steps)
        return
    failed: set[int | None] = set()
    for step in plan.steps:
        reason = _do(step, failed)
        if reason is None:
            report.reclaimed.append(Item(step.what, where))
        else:
            if not step.last:
                failed.add(step.number)
            report.left.append(Item(step.what, where, reason))
    undone = {record.number for record in plan.records} - plan.stuck - failed
    if undone and None not in failed:
        strike_out(folder.fd, undone, owner=os.geteuid())


def _do(step: Step, failed: set[int | None]) -> str | None:
    """Take the step; why that failed, or was not tried, or None."""
    if step.last and failed:
        return "not everything in it could be taken down"
    if step.number is not None and step.number in failed:
        return "it is still in use"
    try:
        step.act()
    except (OSError, ImageMountError) as error:
        return str(error)
    return None


def _is_transient(name: str) -> bool:
    return _CLIENT_SOCKET.fullmatch(name) is not None or _UNFINISHED.fullmatch(name) is not None


def _sweep(name: str, parent: int) -> None:
    """Remove a test process's socket, or a folder that was being made, when its process is dead. No kernel object
    hangs on either."""
    found = _CLIENT_SOCKET.fullmatch(name) or _UNFINISHED.fullmatch(name)
    assert found is not None
    if start_time(int(found[1])) is not None:
        return
    with suppress(OSError, NotTaken):
        if stat.S_ISSOCK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
        else:
            sweep_unfinished(name, parent)
