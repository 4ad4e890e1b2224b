"""``partition="auto"``: the partition that somebody who names none most likely means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from ...errors import ImageMountError, PartitionAmbiguous, PartitionNotFound
from ..text import printable
from .partition_table import Partition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..superblock import Superblock
    from .partition_table import PartitionTable
    from .selection import Probe

LooksLikeRoot = Callable[[Partition], bool]
"""Whether the file system in a partition is that of an installed system, by ``etc/os-release`` in it.

It may raise :class:`~...errors.ImageMountError` where the file system cannot be mounted: then it is not the one.
"""

_MOST_LOOKED_INTO = 16
_HAS_IT = "it has etc/os-release"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is searched for: the root of ``architecture`` on ``image``, a name for errors."""

    image: str
    architecture: str
    looks_like_root: LooksLikeRoot | None

    @property
    def root_type(self) -> str:
        return f"root-{self.architecture}"


def search(table: PartitionTable, probe: Probe, wish: Wish) -> Partition:
    """The only file system; else the only root of the architecture by its type; else the only one that is like a root.

    Roots by type are those of the Discoverable Partitions Specification, without the no-auto attribute. Where there are
    several of them, only they are looked into.

    :raises PartitionNotFound: no partition holds a file system
    :raises PartitionAmbiguous: none, or more than one, is the one; it says of each candidate why it is not
    """
    probed = [(partition, probe(partition.window)) for partition in table.partitions if not partition.container]
    mountable = [partition for partition, found in probed if found is not None and found.mountable]
    if not mountable:
        _nothing(table, probed, wish)
    if len(mountable) == 1:
        return mountable[0]
    roots = [one for one in mountable if one.type_name == wish.root_type and not one.no_auto]
    if len(roots) == 1:
        return roots[0]
    verdicts = _look_into(roots or mountable, wish.looks_like_root)
    alike = [one for one in roots or mountable if verdicts[one.number] == _HAS_IT]
    if len(alike) == 1:
        return alike[0]
    notes = {one.number: _why_not(one, len(roots), wish, verdicts.get(one.number)) for one in mountable}
    if alike:
        reason = f"{len(alike)} of the {len(mountable)} partitions that hold a file system have etc/os-release"
    else:
        reason = (
            f"{len(mountable)} partitions hold a file system, and {len(roots)} of them are of type {wish.root_type}"
        )
    raise PartitionAmbiguous(
        image=wish.image, wanted="auto", reason=f"{reason}; say partition=N", table=table.render(mountable, notes)
    )


def _look_into(candidates: Sequence[Partition], looks_like_root: LooksLikeRoot | None) -> dict[int, str]:
    """Number to what was found there: :data:`_HAS_IT`, or why that candidate is not like a root."""
    if looks_like_root is None or len(candidates) > _MOST_LOOKED_INTO:
        return {one.number: "it was not looked into" for one in candidates}
    verdicts = {}
    for candidate in candidates:
        try:
            verdicts[candidate.number] = _HAS_IT if looks_like_root(candidate) else "it has no etc/os-release"
        except ImageMountError as error:
            verdicts[candidate.number] = f"it could not be looked into: {str(error).splitlines()[0]}"
    return verdicts


def _why_not(candidate: Partition, roots: int, wish: Wish, verdict: str | None) -> str:
    """A remark on a candidate that was not chosen."""
    if candidate.type_name != wish.root_type:
        by_type = f"its type is not {wish.root_type}"
    elif candidate.no_auto:
        by_type = f"its type is {wish.root_type}, with the no-auto attribute"
    else:
        by_type = f"its type is {wish.root_type}, which {roots} have"
    return f"{by_type}; {verdict}" if verdict else by_type


def _nothing(table: PartitionTable, probed: list[tuple[Partition, Superblock | None]], wish: Wish) -> NoReturn:
    held = ", ".join(f"{partition.number} holds {found.type}" for partition, found in probed if found is not None)
    reason = "no partition holds a file system" + (f" ({printable(held)})" if held else "")
    raise PartitionNotFound(image=wish.image, wanted="auto", reason=reason, table=table.render())
