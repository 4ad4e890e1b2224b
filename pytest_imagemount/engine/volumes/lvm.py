"""Volume groups of LVM: found in the images that were given, and nowhere else, and one of their volumes mapped."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from ...errors import RequestInvalid, VolumeInvalid, VolumeNotFound
from ..text import human_size, printable
from . import dm
from .kinds import LVM
from .lvm_metadata import SECTOR, read_group, read_label
from .lvm_tables import Tables

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from ..superblock import Superblock
    from .ground import Block, Ground
    from .lvm_metadata import LogicalVolume, VolumeGroup

_FORM = re.compile(r"([\w.+][\w.+-]*)/([\w.+][\w.+-]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class VolumeName:
    """``GROUP/VOLUME``."""

    group: str
    volume: str

    @classmethod
    def parse(cls, text: str, argument: str, *, prefix: str = "") -> Self:
        """The name behind ``prefix`` in ``text``, which the caller gave as ``argument``.

        :raises RequestInvalid: it is none
        """
        found = _FORM.fullmatch(text.removeprefix(prefix))
        if found is None:
            reason = f"must be the names of a volume group and a logical volume, as in '{prefix}debian/root'"
            raise RequestInvalid(argument=argument, value=repr(text), reason=reason)
        return cls(found[1], found[2])

    def __str__(self) -> str:
        return f"{self.group}/{self.volume}"


class Readable(Protocol):
    """A run of bytes that may be a physical volume; ``place`` is what it is, for messages."""

    @property
    def place(self) -> str: ...

    def pread(self, size: int, offset: int) -> bytes: ...

    def superblock(self) -> Superblock | None: ...


Physical = TypeVar("Physical", bound=Readable)


@dataclass(frozen=True)
class FoundGroup(Generic[Physical]):
    """A volume group, and those of its physical volumes that are there, by their UUID."""

    group: VolumeGroup
    blocks: dict[str, Physical]


def find_groups(image: str, blocks: Iterable[Physical]) -> list[FoundGroup[Physical]]:
    """The groups that those of ``blocks`` are of that are physical volumes.

    :param image: the image's name, for messages
    :raises VolumeInvalid: a label or the metadata are damaged, or a physical volume is there twice
    """
    labelled: dict[str, Physical] = {}
    newest: dict[str, VolumeGroup] = {}
    for block in blocks:
        found = block.superblock()
        if found is None or found.type != LVM or block in labelled.values():
            continue
        label = read_label(block)
        if label is None:
            raise _damaged(image, block, "its label is damaged")
        if other := labelled.get(label.uuid):
            raise _damaged(image, block, f"it is the same physical volume as {other.place}")
        labelled[label.uuid] = block
        try:
            group = read_group(block, label)
        except ValueError as error:
            raise _damaged(image, block, str(error)) from None
        if group is not None and (group.uuid not in newest or newest[group.uuid].serial < group.serial):
            newest[group.uuid] = group
    return [
        FoundGroup(
            group, {known.uuid: labelled[known.uuid] for known in group.physical.values() if known.uuid in labelled}
        )
        for group in newest.values()
    ]


def open_volume(
    ground: Ground, groups: list[FoundGroup[Block]], wanted: VolumeName | None
) -> tuple[dm.MappedDevice, Block, VolumeName]:
    """The device of the wanted volume, the physical volume that is named in messages for it, and what it is called.

    :param wanted: None is the only one that there is
    :raises VolumeNotFound: there is none of that name, or more than one
    :raises VolumeInvalid: it cannot be mapped
    """
    every = [(found, volume) for found in groups for volume in found.group.logical.values() if volume.visible]
    matches = [pair for pair in every if wanted is None or _matches(wanted, *pair)]
    if len(matches) != 1:
        raise _not_found(ground, wanted, every, len(matches))
    found, volume = matches[0]
    dm.require()
    device = Tables(ground, found.group, found.blocks).open(volume)
    return device, next(iter(found.blocks.values())), VolumeName(found.group.name, volume.name)


def has_group(groups: list[FoundGroup[Block]], wanted: VolumeName) -> bool:
    """Whether the wanted volume's group is among ``groups``."""
    return any(found.group.name == wanted.group for found in groups)


def _matches(wanted: VolumeName, found: FoundGroup[Block], volume: LogicalVolume) -> bool:
    return (found.group.name, volume.name) == (wanted.group, wanted.volume)


def _not_found(
    ground: Ground, wanted: VolumeName | None, every: list[tuple[FoundGroup[Block], LogicalVolume]], matches: int
) -> VolumeNotFound:
    lines = []
    for found, volume in every:
        size = human_size(volume.extents * found.group.extent * SECTOR)
        lines.append(printable(f"{found.group.name}/{volume.name}  {size}"))
    if not every:
        reason, hint = "there is no logical volume in it", "choose the partition with the volume group"
    elif wanted is None:
        reason, hint = "it is a volume group, and no volume was chosen", "say volume='GROUP/VOLUME', one of:"
    elif matches:
        reason, hint = "two groups of that name have it", "give the images of one of them only:"
    else:
        reason, hint = "there is none of that name", "the logical volumes are:"
    return VolumeNotFound(image=ground.image, wanted=str(wanted or ""), reason=reason, hint=hint, volumes=lines)


def _damaged(image: str, block: Readable, reason: str) -> VolumeInvalid:
    hint = "see `pvck --dump headers`"
    return VolumeInvalid(image=image, reason=f"physical volume in {block.place}: {reason}", hint=hint)
