"""Which partition a caller means."""

from __future__ import annotations

import platform
import re
from typing import TYPE_CHECKING

from ...errors import PartitionAmbiguous, PartitionNotFound, PartitionRequired, RequestInvalid
from ..text import printable
from .partition_types import root_type_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..reader import Window
    from ..superblock import Superblock
    from .partition_table import Partition, PartitionTable

    Probe = Callable[[Window], Superblock | None]

AUTO = "auto"
FORMS = (
    "None (the image itself), a number from 1, 'auto' (or -1), or one of LABEL=, UUID=, PARTLABEL=, PARTUUID=, TYPE= "
    "with a value"
)
_IDENTITY = re.compile(r"(LABEL|UUID|PARTLABEL|PARTUUID|TYPE)=(.+)", re.DOTALL)
_TYPE_CODE = re.compile(r"(?:0x)?[0-9a-f]{1,2}")
_NUMBER = re.compile(r"-?[0-9]{1,9}")


def select(table: PartitionTable | None, wanted: int | str | None, image: str, *, probe: Probe) -> Partition | None:
    """The partition that ``wanted`` names; None is the whole image.

    :param wanted: as in :data:`FORMS`. ``LABEL=`` and ``UUID=`` are the file system's. UUIDs, and the type code, GUID
        or name after ``TYPE=``, are compared without regard to case.
    :param image: the name that errors use
    :param probe: what is in a window of the disk, or None
    :raises RequestInvalid: ``wanted`` has none of these forms
    :raises PartitionRequired: it is None and the image has a partition table
    :raises PartitionNotFound: no partition matches
    :raises PartitionAmbiguous: more than one does
    """
    request = _parse(wanted)
    if request is None:
        if table is not None:
            raise PartitionRequired(image=image, wanted="None", reason=_choices(table), table=table.render())
        return None
    if table is None:
        if request == AUTO:
            return None
        reason = "the image has no partition table; partition=None mounts the image itself"
        raise PartitionNotFound(image=image, wanted=_shown(wanted), reason=reason)
    if isinstance(request, int):
        if partition := table.find(request):
            return partition
        reason = f"there is no such partition: {_choices(table)}"
        raise PartitionNotFound(image=image, wanted=_shown(wanted), reason=reason, table=table.render())
    if isinstance(request, tuple):
        return _match(table, request, image, probe)
    return _search(table, image, probe)


def _parse(wanted: int | str | None) -> int | str | tuple[str, str] | None:
    """None, a number, :data:`AUTO`, or what to compare and with what."""
    if wanted is None or wanted == AUTO:
        return wanted
    if isinstance(wanted, str) and _NUMBER.fullmatch(wanted):
        wanted = int(wanted)
    if isinstance(wanted, int) and not isinstance(wanted, bool):
        return AUTO if wanted == -1 else wanted
    match = _IDENTITY.fullmatch(wanted) if isinstance(wanted, str) else None
    if match is None:
        raise RequestInvalid(argument="partition", value=repr(wanted), reason=f"not understood; it may be {FORMS}")
    return match[1], match[2]


def _match(table: PartitionTable, request: tuple[str, str], image: str, probe: Probe) -> Partition:
    key, value = request
    matches = [partition for partition in table.partitions if _has(partition, key, value, probe)]
    if len(matches) == 1:
        return matches[0]
    wanted = printable(f"{key}={value}")
    if matches:
        reason = f"{len(matches)} partitions match; say partition=N"
        raise PartitionAmbiguous(image=image, wanted=wanted, reason=reason, table=table.render(matches))
    raise PartitionNotFound(image=image, wanted=wanted, reason="no partition matches", table=table.render())


def _has(partition: Partition, key: str, value: str, probe: Probe) -> bool:
    folded = value.casefold()
    if key == "PARTLABEL":
        return partition.label == value
    if key == "PARTUUID":
        return partition.uuid == folded
    if key == "TYPE":
        code = f"{int(folded, 16):#04x}" if _TYPE_CODE.fullmatch(folded) else folded
        return code == partition.type or folded == partition.type_name
    found = None if partition.container else probe(partition.window)
    if found is None:
        return False
    return found.label == value if key == "LABEL" else (found.uuid or "").casefold() == folded


def _search(table: PartitionTable, image: str, probe: Probe) -> Partition:
    """The one partition to mount: the only file system, or the root of this machine's architecture among several."""
    probed = [(partition, probe(partition.window)) for partition in table.partitions if not partition.container]
    mountable = [partition for partition, found in probed if found is not None and found.mountable]
    if len(mountable) == 1:
        return mountable[0]
    if not mountable:
        held = ", ".join(f"{partition.number} holds {found.type}" for partition, found in probed if found is not None)
        reason = "no partition holds a file system" + (f" ({printable(held)})" if held else "")
        raise PartitionNotFound(image=image, wanted=AUTO, reason=reason, table=table.render())
    root_name = root_type_name(platform.machine())
    roots = [partition for partition in mountable if partition.type_name == root_name]
    if len(roots) == 1:
        return roots[0]
    reason = f"{len(mountable)} partitions hold a file system, and {len(roots)} of them are of type {root_name}"
    raise PartitionAmbiguous(
        image=image, wanted=AUTO, reason=f"{reason}; say partition=N", table=table.render(mountable)
    )


def _choices(table: PartitionTable) -> str:
    numbers = [partition.number for partition in table.partitions if not partition.container]
    if not numbers:
        return "the image has a partition table without a usable partition in it"
    shown = ", ".join(map(str, numbers[:32])) + (", ..." if len(numbers) > 32 else "")
    return f"the image has a partition table; say partition=N, one of {shown}"


def _shown(wanted: int | str | None) -> int | str:
    return printable(wanted) if isinstance(wanted, str) else (wanted if wanted is not None else "None")
