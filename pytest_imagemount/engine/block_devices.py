"""What sysfs says about a block device: its kind, its parent, its partition, what stands on it."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import DeviceFailed
from .mountinfo import mounts

if TYPE_CHECKING:
    from collections.abc import Iterator

Kind = Literal["disk", "partition", "mapping"]


@dataclass(frozen=True, slots=True)
class BlockDeviceFacts:
    """A block device in sysfs.

    ``name`` is the kernel's (``loop3``, ``nbd0p1``, ``dm-0``), ``number`` its ``major:minor``, ``kind`` a whole disk,
    a kernel partition, or a device-mapper mapping; ``mapping`` is the mapper's name for it.
    """

    name: str
    number: str
    kind: Kind
    folder: Path
    partition: int | None = None
    mapping: str | None = None

    @property
    def mountpoints(self) -> list[Path]:
        """Where it is mounted in this mount namespace, the latest mount first."""
        return [entry.target for entry in reversed(mounts()) if entry.device == self.number]


def lookup(device: str | os.PathLike[str], sys_root: Path = Path("/sys")) -> BlockDeviceFacts:
    """The facts of the device at path ``device``, through its device number: never by taking its name apart.

    :raises DeviceFailed: it does not exist, or is no block device
    """
    path = os.fspath(device)
    try:
        status = Path(path).stat()
    except OSError as error:
        reason, hint = error.strerror or str(error), "give the path of an attached device, such as /dev/loop3"
        raise DeviceFailed(image="", device=path, reason=reason, hint=hint, errno=error.errno) from None
    if not stat.S_ISBLK(status.st_mode):
        hint = "give the path of an attached device, such as /dev/loop3"
        raise DeviceFailed(image="", device=path, reason="not a block device", hint=hint)
    number = f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
    return facts(sys_root / "dev/block" / number)


def facts(folder: Path) -> BlockDeviceFacts:
    """The facts of the device whose sysfs folder (or link to it) is ``folder``."""
    folder = folder.resolve()
    number = (folder / "dev").read_text().strip()
    if (folder / "partition").exists():
        return BlockDeviceFacts(folder.name, number, "partition", folder, int((folder / "partition").read_text()))
    if (folder / "dm").is_dir():
        name = (folder / "dm/name").read_text().strip()
        return BlockDeviceFacts(folder.name, number, "mapping", folder, _mapped_partition(folder, name), name)
    return BlockDeviceFacts(folder.name, number, "disk", folder)


def parent(device: BlockDeviceFacts) -> BlockDeviceFacts:
    """The disk on which ``device`` stands; a disk is its own parent.

    :raises DeviceFailed: a mapping on several devices, or on a mapping: a volume, not a partition
    """
    if device.kind == "disk":
        return device
    if device.kind == "partition":
        return facts(device.folder.parent)
    below = [facts(entry) for entry in sorted((device.folder / "slaves").iterdir())]
    if len(below) != 1 or below[0].kind == "mapping":
        reason = f"the mapping {device.mapping} stands on {', '.join(entry.name for entry in below) or 'nothing'}"
        hint = "only a partition of one disk is adopted; take down volumes with their own tools first"
        raise DeviceFailed(image="", device=f"/dev/{device.name}", reason=reason, hint=hint)
    return parent(below[0])


def above(disk: BlockDeviceFacts) -> Iterator[BlockDeviceFacts]:
    """Every partition and mapping that stands on ``disk``, what stands highest first."""
    for entry in disk.folder.glob("*/partition"):
        partition = facts(entry.parent)
        yield from above(partition)
        yield partition
    for holder in (disk.folder / "holders").glob("dm-*"):
        mapping = facts(holder)
        yield from above(mapping)
        yield mapping


def _mapped_partition(folder: Path, name: str) -> int | None:
    # kpartx writes "part3-devnode_…" in the uuid, and names the mapping after the disk: nbd0p3, loop0p3.
    if found := re.match(r"part(\d+)-", (folder / "dm/uuid").read_text()):
        return int(found[1])
    disks = [entry.name for entry in (folder / "slaves").iterdir()]
    if len(disks) == 1 and (found := re.fullmatch(re.escape(disks[0]) + r"p?(\d+)", name)):
        return int(found[1])
    return None
