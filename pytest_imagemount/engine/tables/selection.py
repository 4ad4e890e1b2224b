"""Which partition, or logical volume, a caller means."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...errors import PartitionAmbiguous, PartitionNotFound, PartitionRequired, RequestInvalid
from ..reader import Window
from ..text import printable
from .auto import Wish, counted, how_to_say, render, search, untold
from .discoverable import architecture_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..superblock import Superblock
    from ..volumes.contents import LogicalVolumes
    from .auto import Candidate, LooksLikeRoot
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
    volumes: Callable[[], LogicalVolumes | None] | None = None,
) -> Candidate | None:
    """The partition or logical volume that ``wanted`` names; None is the whole image.

    ``None`` on an image with a partition table is refused, unless the image as a whole is an ISO 9660 (or UDF) one,
    which has a table besides so that it starts from a USB stick too: it is the ISO that is meant.

    :param wanted: as in :data:`FORMS`. ``LABEL=`` and ``UUID=`` are the file system's. UUIDs, and the type code, GUID
        or name after ``TYPE=``, are compared without regard to case. ``TYPE=root`` and ``TYPE=usr`` are those of
        ``architecture``.
    :param image: the name that errors use
    :param probe: what is in a window of the disk, or None
    :param architecture: whose root ``"auto"`` looks for, as for :func:`~.discoverable.architecture_name`
    :param looks_like_root: see :class:`~.auto.Wish`
    :param volumes: what gives the logical volumes of the image: ``LABEL=``, ``UUID=`` and ``"auto"`` look in them too
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
    by_content = request == AUTO or (isinstance(request, tuple) and request[0] in _OF_CONTENT)
    logical = volumes() if volumes is not None and by_content else None
    if table is None and request != AUTO and not (logical and logical.found):
        reason = "the image has no partition table; partition=None mounts the image itself"
        raise PartitionNotFound(image=image, wanted=_shown(wanted), reason=reason)
    if isinstance(request, int):
        assert table is not None
        if partition := table.find(request):
            return partition
        reason = f"there is no such partition: {_choices(table)}"
        raise PartitionNotFound(image=image, wanted=_shown(wanted), reason=reason, table=table.render())
    if isinstance(request, tuple):
        return _match(table, request, image, probe, native, logical)
    if table is not None and _covers_volume_descriptors(table) and _is_optical(table, probe):
        return None
    return search(table, probe, Wish(image, native, looks_like_root), logical)


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


def _match(
    table: PartitionTable | None,
    request: tuple[str, str],
    image: str,
    probe: Probe,
    native: str,
    logical: LogicalVolumes | None,
) -> Candidate:
    key, value = request
    if key == "TYPE" and (match := _NATIVE_TYPE.fullmatch(value.casefold())):
        value = f"{match[1]}-{native}{match[2]}"
    every = table.partitions if table else ()
    partitions = [partition for partition in every if _has(partition, key, value, probe)]
    volumes = [volume for volume in (logical.found if logical else ()) if _is_called(volume.superblock, key, value)]
    matches: list[Candidate] = [*partitions, *volumes]
    if len(matches) == 1:
        return matches[0]
    wanted = printable(f"{key}={value}")
    held: dict[int | str, str] = {**_held(every, probe), **_in_volumes(logical)} if key in _OF_CONTENT else {}
    if matches:
        known = {one.number for one in partitions} | {one.name for one in volumes}
        held = {name: text for name, text in held.items() if name in known}
        shown = render(table, partitions, volumes, held)
        reason = f"{len(matches)} {counted(partitions, volumes)} match; say {how_to_say(volumes)}"
        raise PartitionAmbiguous(image=image, wanted=wanted, reason=reason, table=shown)
    reason = f"no partition{' and no logical volume' if logical else ''} matches{untold(logical)}"
    shown = render(table, None, logical.found if logical else (), held)
    raise PartitionNotFound(image=image, wanted=wanted, reason=reason, table=shown)


def _held(partitions: Sequence[Partition], probe: Probe) -> dict[int | str, str]:
    """Number to what the partition holds, and by which names: the table has those of the partition itself only."""
    found = {one.number: probe(one.window) for one in partitions if not one.container}
    return {number: _names(one) for number, one in found.items() if one is not None}


def _in_volumes(logical: LogicalVolumes | None) -> dict[int | str, str]:
    """The same of logical volumes."""
    return {one.name: _names(one.superblock) for one in (logical.found if logical else ()) if one.superblock}


def _names(found: Superblock) -> str:
    names = (("LABEL", found.label), ("UUID", found.uuid))
    return ", ".join([found.type, *(f"{key}={name}" for key, name in names if name)])


def _has(partition: Partition, key: str, value: str, probe: Probe) -> bool:
    folded = value.casefold()
    if key == "PARTLABEL":
        return partition.label == value
    if key == "PARTUUID":
        return partition.uuid == folded
    if key == "TYPE":
        code = f"{int(folded, 16):#04x}" if _TYPE_CODE.fullmatch(folded) else folded
        return code == partition.type.casefold() or folded == partition.type_name
    return _is_called(None if partition.container else probe(partition.window), key, value)


def _is_called(found: Superblock | None, key: str, value: str) -> bool:
    """Whether that is the ``LABEL`` or ``UUID`` of what was found."""
    if found is None:
        return False
    return found.label == value if key == "LABEL" else (found.uuid or "").casefold() == value.casefold()


def _choices(table: PartitionTable) -> str:
    numbers = [partition.number for partition in table.partitions if not partition.container]
    if not numbers:
        return "the image has a partition table without a usable partition in it"
    shown = ", ".join(map(str, numbers[:32])) + (", ..." if len(numbers) > 32 else "")
    return f"the image has a partition table; say partition=N, one of {shown}"


def _shown(wanted: int | str | None) -> int | str:
    return printable(wanted) if isinstance(wanted, str) else (wanted if wanted is not None else "None")
