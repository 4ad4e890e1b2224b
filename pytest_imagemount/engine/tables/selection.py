"""Which partition a caller means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...errors import PartitionAmbiguous, PartitionNotFound, PartitionRequired, RequestInvalid
from ..reader import Window
from ..text import printable
from .auto import Wish, search
from .discoverable import architecture_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..superblock import Superblock
    from .auto import LooksLikeRoot
    from .partition_table import Partition, PartitionTable

    Probe = Callable[[Window], Superblock | None]

AUTO = "auto"
FORMS = (
    "None (the image itself), a number from 1, 'auto' (or -1), or one of LABEL=, UUID=, PARTLABEL=, PARTUUID=, TYPE= "
    "with a value, or lv:GROUP/VOLUME"
)
_IDENTITY = re.compile(r"(LABEL|UUID|PARTLABEL|PARTUUID|TYPE)=(.+)", re.DOTALL)
_TYPE_CODE = re.compile(r"(?:0x)?[0-9a-f]{1,2}")
_NATIVE_TYPE = re.compile(r"(root|usr)((?:-verity)?(?:-sig)?)")
_NUMBER = re.compile(r"-?[0-9]{1,9}")
_OF_CONTENT = ("LABEL", "UUID")
_OPTICAL = ("iso9660", "udf")
_VOLUME_DESCRIPTORS_AT = 32 << 10


def select(
    table: PartitionTable | None,
    wanted: int | str | None,
    image: str,
    *,
    probe: Probe,
    architecture: str | None = None,
    looks_like_root: LooksLikeRoot | None = None,
) -> Partition | None:
    """The partition that ``wanted`` names; None is the whole image.

    ``None`` on an image with a partition table is refused, unless the image as a whole is an ISO 9660 (or UDF) one,
    which has a table besides so that it starts from a USB stick too: it is the ISO that is meant.

    :param wanted: as in :data:`FORMS`. ``LABEL=`` and ``UUID=`` are the file system's. UUIDs, and the type code, GUID
        or name after ``TYPE=``, are compared without regard to case. ``TYPE=root`` and ``TYPE=usr`` are those of
        ``architecture``.
    :param image: the name that errors use
    :param probe: what is in a window of the disk, or None
    :param architecture: whose root ``"auto"`` looks for, as for :func:`~.discoverable.architecture_name`
    :param looks_like_root: see :data:`~.auto.LooksLikeRoot`; None: no candidate is looked into
    :raises RequestInvalid: ``wanted`` has none of these forms, or there is no such architecture
    :raises PartitionRequired: it is None and the image has a partition table
    :raises PartitionNotFound: no partition matches
    :raises PartitionAmbiguous: more than one does
    """
    request = _parse(wanted)
    native = architecture_name(architecture)
    if request is None:
        if table is None or _is_optical(table, probe):
            return None
        raise PartitionRequired(image=image, wanted="None", reason=_choices(table), table=table.render())
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
        return _match(table, request, image, probe, native)
    if _covers_volume_descriptors(table) and _is_optical(table, probe):
        return None
    return search(table, probe, Wish(image, native, looks_like_root))


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


def _is_optical(table: PartitionTable, probe: Probe) -> bool:
    """The whole disk is an ISO 9660 or UDF one."""
    found = probe(Window(0, table.disk_size)) if table.disk_size else None
    return found is not None and found.type in _OPTICAL


def _covers_volume_descriptors(table: PartitionTable) -> bool:
    """A partition lies over where an ISO has its descriptors: else they may be left over from former days."""
    return any(one.window.offset <= _VOLUME_DESCRIPTORS_AT < one.window.end for one in table.partitions)


def _match(table: PartitionTable, request: tuple[str, str], image: str, probe: Probe, native: str) -> Partition:
    key, value = request
    if key == "TYPE" and (match := _NATIVE_TYPE.fullmatch(value.casefold())):
        value = f"{match[1]}-{native}{match[2]}"
    matches = [partition for partition in table.partitions if _has(partition, key, value, probe)]
    if len(matches) == 1:
        return matches[0]
    wanted = printable(f"{key}={value}")
    held = _held(table, probe) if key in _OF_CONTENT else {}
    if matches:
        reason = f"{len(matches)} partitions match; say partition=N"
        held = {one.number: held[one.number] for one in matches if one.number in held}
        raise PartitionAmbiguous(image=image, wanted=wanted, reason=reason, table=table.render(matches, held))
    reason = "no partition matches"
    raise PartitionNotFound(image=image, wanted=wanted, reason=reason, table=table.render(notes=held))


def _held(table: PartitionTable, probe: Probe) -> dict[int, str]:
    """Number to what the partition holds, and by which names: the table has those of the partition itself only."""
    found = {one.number: probe(one.window) for one in table.partitions if not one.container}
    return {
        number: ", ".join(
            [one.type, *(f"{key}={name}" for key, name in (("LABEL", one.label), ("UUID", one.uuid)) if name)]
        )
        for number, one in found.items()
        if one is not None
    }


def _has(partition: Partition, key: str, value: str, probe: Probe) -> bool:
    folded = value.casefold()
    if key == "PARTLABEL":
        return partition.label == value
    if key == "PARTUUID":
        return partition.uuid == folded
    if key == "TYPE":
        code = f"{int(folded, 16):#04x}" if _TYPE_CODE.fullmatch(folded) else folded
        return code == partition.type.casefold() or folded == partition.type_name
    found = None if partition.container else probe(partition.window)
    if found is None:
        return False
    return found.label == value if key == "LABEL" else (found.uuid or "").casefold() == folded


def _choices(table: PartitionTable) -> str:
    numbers = [partition.number for partition in table.partitions if not partition.container]
    if not numbers:
        return "the image has a partition table without a usable partition in it"
    shown = ", ".join(map(str, numbers[:32])) + (", ..." if len(numbers) > 32 else "")
    return f"the image has a partition table; say partition=N, one of {shown}"


def _shown(wanted: int | str | None) -> int | str:
    return printable(wanted) if isinstance(wanted, str) else (wanted if wanted is not None else "None")
