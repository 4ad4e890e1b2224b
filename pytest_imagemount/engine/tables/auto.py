"""``partition="auto"``: the partition that somebody who names none most likely means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from ...errors import ImageMountError, PartitionAmbiguous, PartitionNotFound
from ..text import human_size, printable
from ..volumes.kinds import LUKS, RAID
from .partition_table import Partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ..superblock import Superblock
    from ..volumes.contents import LogicalVolume, LogicalVolumes
    from .partition_table import PartitionTable
    from .selection import Probe

    Candidate = Partition | LogicalVolume
    LooksLikeRoot = Callable[[Candidate], bool]

_MOST_LOOKED_INTO = 16
_HAS_IT = "it has etc/os-release"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is searched for: the root of ``architecture`` on ``image``, a name for errors.

    :param looks_like_root: whether the file system in a candidate is that of an installed system, by
        ``etc/os-release`` in it. It may raise :class:`~...errors.ImageMountError` where the file system cannot be
        mounted: then it is not the one. None: no candidate is looked into
    """

    image: str
    architecture: str
    looks_like_root: LooksLikeRoot | None

    @property
    def root_type(self) -> str:
        return f"root-{self.architecture}"


def search(
    table: PartitionTable | None, probe: Probe, wish: Wish, logical: LogicalVolumes | None = None
) -> Candidate | None:
    """The only file system; else the only root of the architecture by its type; else the only one that is like a root.

    Roots by type are those of the Discoverable Partitions Specification, without the no-auto attribute. Where there are
    several of them, only they are looked into. File systems are in partitions, in arrays of them, each of which counts
    by its first member, and in logical volumes; None is the image itself, which has none of these.

    :raises PartitionNotFound: nothing holds a file system
    :raises PartitionAmbiguous: none, or more than one, is the one; it says of each candidate why it is not
    """
    probed = [(one, probe(one.window)) for one in table.partitions if not one.container] if table else []
    partitions = [*_with_contents(probed)]
    volumes = [volume for volume in logical.found if volume.may_be_mountable] if logical else []
    candidates: list[Candidate] = [*partitions, *volumes]
    if not candidates:
        if table is None:
            return None
        _nothing(table, probed, wish, logical)
    if len(candidates) == 1:
        return candidates[0]
    roots: list[Candidate] = [one for one in partitions if one.type_name == wish.root_type and not one.no_auto]
    if len(roots) == 1:
        return roots[0]
    verdicts = _look_into(roots or candidates, wish.looks_like_root)
    alike = [one for one in roots or candidates if verdicts[name_of(one)] == _HAS_IT]
    if len(alike) == 1:
        return alike[0]
    notes = {name_of(one): _why_not(one, len(roots), wish, verdicts.get(name_of(one))) for one in candidates}
    kinds = counted(partitions, volumes)
    several = f"{len(candidates)} {kinds} hold a file system"
    if alike:
        reason = f"{len(alike)} of the {len(candidates)} {kinds} that hold a file system have etc/os-release"
    elif partitions:
        reason = f"{several}, and {len(roots)} of them are of type {wish.root_type}"
    else:
        reason = f"{several}, and none of them has etc/os-release"
    reason += f"; say {how_to_say(volumes)}{_closed(probed)}{untold(logical)}"
    shown = render(table, partitions, volumes, notes)
    raise PartitionAmbiguous(image=wish.image, wanted="auto", reason=reason, table=shown)


def _with_contents(probed: Sequence[tuple[Partition, Superblock | None]]) -> Iterator[Partition]:
    """Those that hold a file system, or are the first member of an array, which may hold one."""
    arrays: set[str | None] = set()
    for partition, found in probed:
        if found is not None and found.type == RAID:
            if found.uuid not in arrays:
                yield partition
            arrays.add(found.uuid)
        elif found is not None and found.mountable:
            yield partition


def name_of(candidate: Candidate) -> int | str:
    """What ``partition=`` takes for it."""
    return candidate.number if isinstance(candidate, Partition) else candidate.name


def how_to_say(volumes: Sequence[LogicalVolume]) -> str:
    """How a caller names one of several."""
    return "partition=N or partition='lv:GROUP/VOLUME'" if volumes else "partition=N"


def untold(logical: LogicalVolumes | None) -> str:
    """Why there may be more logical volumes than are known, as the end of a reason."""
    return f"; its logical volumes cannot be told: {logical.error}" if logical and logical.error else ""


def render(
    table: PartitionTable | None,
    partitions: Sequence[Partition] | None,
    volumes: Sequence[LogicalVolume],
    notes: Mapping[int | str, str],
) -> str:
    """Both kinds as text that is safe to print; ``partitions``: only these of the table, None is all."""
    lines = []
    if table is not None and (partitions or partitions is None or not volumes):
        of_partitions = {number: note for number, note in notes.items() if isinstance(number, int)}
        lines.append(table.render(partitions, of_partitions))
    if volumes:
        lines.append("logical volumes")
    for volume in volumes:
        words = [printable(volume.name), human_size(volume.size), volume.kind]
        words += [volume.superblock.type] if volume.superblock else []
        lines.append("  " + "  ".join(words))
    lines += [f"  {printable(str(name))}: {printable(note)}" for name, note in notes.items() if isinstance(name, str)]
    return "\n".join(lines)


def _closed(probed: Sequence[tuple[Partition, Superblock | None]]) -> str:
    """That there may be more file systems in what is encrypted, as a part of a reason."""
    encrypted = [str(partition.number) for partition, found in probed if found is not None and found.type == LUKS]
    return f"; encrypted (LUKS), and not opened: {', '.join(encrypted)}" if encrypted else ""


def counted(partitions: Sequence[Partition], volumes: Sequence[LogicalVolume]) -> str:
    """What they are, for a sentence that counts them."""
    if partitions and volumes:
        return "partitions and logical volumes"
    return "logical volumes" if volumes else "partitions"


def _look_into(candidates: Sequence[Candidate], looks_like_root: LooksLikeRoot | None) -> dict[int | str, str]:
    """Name to what was found there: :data:`_HAS_IT`, or why that candidate is not like a root."""
    if looks_like_root is None or len(candidates) > _MOST_LOOKED_INTO:
        return {name_of(one): "it was not looked into" for one in candidates}
    verdicts = {}
    for candidate in candidates:
        name = name_of(candidate)
        try:
            verdicts[name] = _HAS_IT if looks_like_root(candidate) else "it has no etc/os-release"
        except ImageMountError as error:
            verdicts[name] = f"it could not be looked into: {str(error).splitlines()[0]}"
    return verdicts


def _why_not(candidate: Candidate, roots: int, wish: Wish, verdict: str | None) -> str:
    """A remark on a candidate that was not chosen."""
    if not isinstance(candidate, Partition):
        return verdict or "a partition is of the root's type"
    if candidate.type_name != wish.root_type:
        by_type = f"its type is not {wish.root_type}"
    elif candidate.no_auto:
        by_type = f"its type is {wish.root_type}, with the no-auto attribute"
    else:
        by_type = f"its type is {wish.root_type}, which {roots} have"
    return f"{by_type}; {verdict}" if verdict else by_type


def _nothing(
    table: PartitionTable,
    probed: list[tuple[Partition, Superblock | None]],
    wish: Wish,
    logical: LogicalVolumes | None,
) -> NoReturn:
    held = ", ".join(f"{partition.number} holds {found.type}" for partition, found in probed if found is not None)
    reason = "no partition holds a file system" + (f" ({printable(held)})" if held else "") + untold(logical)
    volumes = logical.found if logical else ()
    raise PartitionNotFound(image=wish.image, wanted="auto", reason=reason, table=render(table, None, volumes, {}))
