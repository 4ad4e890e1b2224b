"""What the kernel still has of a folder's mounts, found by the tags and places that only they have.

A number that stood in a record says nothing: the device, or the pid, may be another's by now. The tag of a loop device,
the identifier of an NBD connection and the working folder of a storage daemon are looked at themselves.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine import loop
from ..engine.block_devices import facts, parent
from ..engine.held_folder import TOKEN
from ..engine.nbd.pool import BACKEND_PREFIX
from ..engine.nbd.state import SYS, kernel_state
from ..engine.processes import ProcessId
from ..errors import DeviceFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..engine.held_folder import AbandonedFolder
    from ..engine.mountinfo import MountEntry
    from .record import Record

EXPORT = re.compile(r"export-\d+")
_DAEMON = "qemu-storage-daemon"


@dataclass(frozen=True, slots=True)
class OurDevice:
    """A loop or NBD device, a mapping or an array of a dead helper.

    :param name: the kernel's, as ``loop3`` or ``dm-0``
    :param number: of the mount, as in the journal; None when only the place of its file tells that it is ours
    :param mark: what it is looked at again by, before it is touched: the disk's sequence number of a loop device, the
        identifier of an NBD connection, the name of a mapping or an array
    """

    name: str
    number: int | None
    mark: str | None

    @property
    def index(self) -> int:
        """N of ``loopN`` or ``nbdN``."""
        return int(self.name.removeprefix("loop").removeprefix("nbd"))


def devices_of(folder: AbandonedFolder, records: Sequence[Record]) -> list[OurDevice]:
    """Every device that the process of ``folder`` left; what lies on others comes before them."""
    from .volume_leftovers import volumes_of

    return [*volumes_of(folder.note.token), *_loops(folder, records), *_nbds(folder.note.token)]


def own_node(number: int, folder: Path) -> str | None:
    """The node of ``loopN`` in ``folder``, where ``/dev`` has none."""
    node = folder / f"loop{number}"
    return str(node) if not Path(f"/dev/loop{number}").exists() and node.exists() else None


def is_detached(name: str) -> bool:
    """Whether the file behind loop device ``name`` is on a file system that is not mounted any more: a dead export."""
    return name.startswith("loop") and loop.backing_file(int(name.removeprefix("loop"))) == "/"


def _loops(folder: AbandonedFolder, records: Sequence[Record]) -> Iterator[OurDevice]:
    known = {record.diskseq: record.number for record in records if record.diskseq}
    for entry in sorted(Path("/sys/block").glob("loop*/loop")):
        name = entry.parent.name
        index = int(name.removeprefix("loop"))
        mark, backing = loop.disk_sequence(index), Path(loop.backing_file(index))
        if mark in known:
            yield OurDevice(name, known[mark], mark)
        elif backing.parent == folder.path and EXPORT.fullmatch(backing.name):
            yield OurDevice(name, None, mark)
        elif not TOKEN.fullmatch(backing.parent.name):
            # The kernel asks the file itself before it tells the tag. That waits for ever for an export whose daemon is
            # stopped, so an export of any helper is told by its place alone; and it fails when the export is dead.
            tag = loop.tag_of(index, own_node(index, folder.call)) or ""
            number = _number(tag, loop.TAG, folder.note.token)
            if number is not None:
                yield OurDevice(name, number, mark)


def _nbds(token: str) -> Iterator[OurDevice]:
    for entry in sorted((SYS / "block").glob("nbd*/pid")):
        name = entry.parent.name
        backend = kernel_state(int(name.removeprefix("nbd"))).backend
        number = _number(backend, BACKEND_PREFIX, token)
        if number is not None:
            yield OurDevice(name, number, backend)


def _number(text: str, prefix: str, token: str) -> int | None:
    """NUMBER of ``PREFIX TOKEN:NUMBER[:image name]``, None when it is not of ``token``."""
    fields = text.removeprefix(prefix).split(":", 2)
    if not text.startswith(prefix) or len(fields) < 2 or fields[0] != token or not fields[1].isdecimal():
        return None
    return int(fields[1])


def disk_of(entry: MountEntry) -> str:
    """Name of the disk that the file system is on, as ``loop3``; empty where it is on none."""
    from .volume_leftovers import volume_under

    if volume := volume_under(entry):
        return volume
    # btrfs shows a device number of its own invention: its source is then the only trace.
    folder = Path("/sys/dev/block") / entry.device
    with suppress(OSError, DeviceFailed):
        if not folder.exists() and entry.source.startswith("/dev/"):
            folder = Path("/sys/class/block") / Path(entry.source).name
        return parent(facts(folder)).name
    return ""


def daemons_in(folder: int) -> list[ProcessId]:
    """The storage daemons of this user whose working folder is the one open at ``folder``."""
    place = os.fstat(folder)
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # it has ended
            program = (Path(entry.path) / "cmdline").read_bytes().split(b"\0", 1)[0]
            if os.path.basename(program) != _DAEMON.encode() or entry.stat().st_uid != os.geteuid():  # noqa: PTH119
                continue
            where = os.stat(f"/proc/{entry.name}/cwd")  # noqa: PTH116
            process = ProcessId.of(int(entry.name))
            if (where.st_dev, where.st_ino) == (place.st_dev, place.st_ino) and process.alive:
                found.append(process)
    return found
