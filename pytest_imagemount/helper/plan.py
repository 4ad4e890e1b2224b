"""What there is to take down in one dead helper's folder, from one look at the kernel: the same for a dry run."""

from __future__ import annotations

import os
import re
import select
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine import loop
from ..engine.mountinfo import MountEntry, mounts
from ..engine.nbd.state import kernel_state
from ..engine.processes import ProcessId, start_time
from ..engine.undo import patience
from ..engine.unmounting import unmount_entry
from ..errors import ImageMountError
from .folder_contents import remove_contents, strangers_in
from .journal import read_journal
from .leftovers import EXPORT, OurDevice, daemons_in, devices_of, disk_of, is_detached, own_node
from .volume_leftovers import is_volume, take_down

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..engine.held_folder import AbandonedFolder
    from .record import Record

_END_TIMEOUT = 2.0
_MOUNT = re.compile(r"mount-\d+")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to take down.

    :param number: its mount's in the journal, None where it belongs to all of them
    :param last: only to be done when nothing has failed
    """

    what: str
    act: Callable[[], object]
    number: int | None = None
    last: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done, in order; what is ours but cannot be taken down, and why; what was ours once.

    ``stuck`` are the numbers of mounts that will not be wholly taken down.
    """

    records: tuple[Record, ...]
    steps: list[Step] = field(default_factory=list)
    left: list[tuple[str, str]] = field(default_factory=list)
    not_ours: list[tuple[str, str]] = field(default_factory=list)
    stuck: set[int] = field(default_factory=set)

    def stick(self, number: int | None) -> None:
        """Mount ``number``, or if that is not known any of them, will not be wholly taken down."""
        self.stuck.update([number] if number is not None else [record.number for record in self.records])


def make_plan(folder: AbandonedFolder) -> Plan:
    """Look at what the journal, the tags and the places of ``folder`` lead to. Changes nothing."""
    token, path = folder.note.token, folder.path
    records, unreadable = read_journal(folder.fd, token, owner=os.geteuid())
    plan = Plan(tuple(records))
    plan.left.extend((f"{path}/{file.name}", f"this is no record of ours: {file.reason}") for file in unreadable)
    plan.left.extend((f"{path}/{name}", "no helper makes such a thing here") for name in strangers_in(folder.fd))
    devices = devices_of(folder, records)
    # A daemon got SIGTERM at its helper's death. One that is there still is stuck, and all that waits for it would be.
    for daemon in daemons_in(folder.fd):
        plan.steps.append(Step(f"end qemu-storage-daemon, process {daemon.pid}", lambda daemon=daemon: _end(daemon)))  # type: ignore[misc]
    exports, busy = _plan_mounts(plan, path, devices)
    _plan_devices(plan, folder.call, devices, busy)
    for entry in exports:
        plan.steps.append(_unmount_step(entry, None))
    _note_what_was_ours(plan, devices)
    if not plan.left:
        plan.steps.append(Step(f"remove {path}", lambda: _remove(folder), last=True))
    return plan


def _plan_mounts(plan: Plan, path: Path, devices: list[OurDevice]) -> tuple[list[MountEntry], set[str]]:
    """Plan the unmounts of file systems.

    Returns the FUSE exports, which come after the devices on them, and the names of disks that will stay mounted.
    """
    by_name = {device.name: device for device in devices}
    places = {(record.number, record.mountpoint) for record in plan.records}
    ours: list[tuple[MountEntry, int | None]] = []
    exports: list[MountEntry] = []
    strange: list[MountEntry] = []
    for entry in reversed(mounts()):
        disk = disk_of(entry)
        device = by_name.get(disk)
        inside = entry.target.parent == path
        place = inside and _MOUNT.fullmatch(entry.target.name)
        if device and (place or (device.number, str(entry.target)) in places):
            ours.append((entry, device.number))
        elif place and is_detached(disk):  # its helper died before it had noted the device
            ours.append((entry, None))
        elif inside and EXPORT.fullmatch(entry.target.name) and entry.fstype.startswith("fuse"):
            exports.append(entry)
        elif device or path in entry.target.parents:
            strange.append(entry)
    busy = {disk_of(entry) for entry in strange}
    blocked = [entry for entry in strange if any(_lies_on(entry, below) for below, _ in ours)]
    for entry in strange:
        reason = "it lies on a mount of ours" if entry in blocked else _why_strange(entry, by_name)
        plan.left.append((f"{entry.source} at {entry.target}", f"{reason}, but no helper mounted it; unmount it first"))
    for entry, number in ours:
        if any(_lies_on(above, entry) for above in blocked):
            plan.left.append((f"unmount {entry.target}", "something else is mounted on it"))
            plan.stick(number)
            busy.add(disk_of(entry))
        else:
            plan.steps.append(_unmount_step(entry, number))
    return exports, busy


def _lies_on(entry: MountEntry, below: MountEntry) -> bool:
    return below.target == entry.target or below.target in entry.target.parents


def _why_strange(entry: MountEntry, by_name: dict[str, OurDevice]) -> str:
    if device := by_name.get(disk_of(entry)):
        return f"/dev/{device.name} is ours"
    return "it is in a folder of ours"


def _unmount_step(entry: MountEntry, number: int | None) -> Step:
    return Step(f"unmount {entry.target}", lambda: unmount_entry(entry), number)


def _plan_devices(plan: Plan, folder: Path, devices: list[OurDevice], busy: set[str]) -> None:
    # What lies on others comes first, and what is mounted keeps all that is below it.
    busy_mounts = {device.number for device in devices if device.name in busy and is_volume(device)}
    for device in devices:
        what, act = _undo_of(device)
        if device.name in busy or device.number in busy_mounts:
            plan.left.append((what, "a file system on it is mounted"))
            plan.stick(device.number)
        else:
            plan.steps.append(Step(what, lambda device=device, act=act: act(device, folder), device.number))  # type: ignore[misc]


def _undo_of(device: OurDevice) -> tuple[str, Callable[[OurDevice, Path], None]]:
    if is_volume(device):
        return f"remove /dev/{device.name} ({device.mark})", lambda device, _: take_down(device)
    if device.name.startswith("loop"):
        return f"detach /dev/{device.name}", _detach
    return f"disconnect /dev/{device.name}", _disconnect


def _note_what_was_ours(plan: Plan, devices: list[OurDevice]) -> None:
    """What the records name and somebody else has now: told, and left alone."""
    tagged = {device.name for device in devices}
    now = {entry.target: entry for entry in mounts()}
    planned = {step.what for step in plan.steps} | {what for what, _ in plan.left}
    for record in plan.records:
        name = Path(record.device).name
        if name not in tagged and re.fullmatch(r"(loop|nbd)\d+", name) and _is_attached(name):
            plan.not_ours.append((f"/dev/{name}", f"mount {record.number} had it; somebody else has it now"))
        place = now.get(Path(record.mountpoint)) if record.mountpoint else None
        if place is not None and f"unmount {place.target}" not in planned and disk_of(place) not in tagged:
            reason = f"mount {record.number} was here; {place.source} is mounted here now"
            plan.not_ours.append((str(place.target), reason))
        if record.daemon is not None and start_time(record.daemon.pid) not in (None, record.daemon.start):
            reason = f"the storage daemon of mount {record.number} had this number; another process has it now"
            plan.not_ours.append((f"process {record.daemon.pid}", reason))


def _is_attached(name: str) -> bool:
    folder = Path("/sys/block") / name
    return (folder / "loop").is_dir() or (folder / "pid").exists()


def _detach(device: OurDevice, folder: Path) -> None:
    loop.detach_disk(device.index, device.mark, own_node(device.index, folder))


def _disconnect(device: OurDevice, _: Path) -> None:
    from ..engine.nbd import attach as nbd

    if kernel_state(device.index).backend == device.mark:
        nbd.disconnect(device.index)


def _end(process: ProcessId) -> None:
    """SIGTERM, on which the daemon removes its exports, then SIGKILL."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not process.alive:  # looked at after pidfd_open: the descriptor is of this very process
                return
            signal.pidfd_send_signal(descriptor, number)
            if poll.poll(patience(_END_TIMEOUT) * 1000):
                return
    finally:
        os.close(descriptor)
    raise ImageMountError(f"process {process.pid} does not end, not even by SIGKILL; see the kernel log (dmesg)")


def _remove(folder: AbandonedFolder) -> None:
    remove_contents(folder.fd)
    folder.remove()
