"""The device mapper's tables of a logical volume, under names of our own: LVM does not know that it is active.

Source: LVM2's lib/format_text and lib/activate/dev_manager.c; Documentation/admin-guide/device-mapper.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from ...errors import VolumeInvalid
from . import dm
from .lvm_metadata import SECTOR

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .ground import Block, Ground
    from .lvm_metadata import LogicalVolume, Segment, VolumeGroup

_DEEPEST = 8
_MOST_PARTS = 256
"""Logical volumes that another one is made of, in all."""
_MIRRORS = ("raid1", "mirror")
# struct dm_raid_superblock: magic, features, devices, position; events, failed devices, recovery offset.
_RAID = struct.Struct("<4I3Q")
_RAID_MAGIC = 0x64526D44
_IN_SYNC = (1 << 64) - 1


class _Gone(Exception):
    """A physical volume is not there; the argument is its name."""


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of a mirror by its superblock: ``failed`` has a bit for each side that this one knows to have failed."""

    image: str
    number: int
    events: int
    failed: int
    recovered: int


@dataclass
class Tables:
    """Makes the mappings of one group's volumes.

    :param blocks: the physical volumes that are there, by their UUID
    """

    ground: Ground
    group: VolumeGroup
    blocks: Mapping[str, Block]
    _physical: dict[str, tuple[str, int]] = field(default_factory=dict)
    _logical: dict[str, str] = field(default_factory=dict)

    def open(self, volume: LogicalVolume) -> dm.MappedDevice:
        """The device of ``volume``.

        :raises VolumeInvalid: a part of it is missing, or its type is none that we can map
        """
        if self.ground.mode == "rw":
            self._require_writable(volume)
        try:
            return self.ground.map(self._table(volume, 0))
        except _Gone as gone:
            known = self.group.physical[str(gone)]
            reason = f"it needs the physical volume {gone} ({known.uuid}), which is not in the image"
            raise self._invalid(volume, reason, "give every image of the group, as a list") from None
        except ValueError as error:
            raise self._invalid(volume, f"its metadata are damaged: {error}", "see `vgck`") from None

    def _require_writable(self, volume: LogicalVolume) -> None:
        hint = "use mode='ro' or mode='overlay'"
        if not volume.writable:
            raise self._invalid(volume, "it is read-only in its group", hint)
        origins = {one.settings.get("origin") for one in self._snapshots}
        if volume.name in origins:
            raise self._invalid(volume, "it has snapshots, which writing to it would spoil", hint)

    @cached_property
    def _snapshots(self) -> list[Segment]:
        every = [segment for volume in self.group.logical.values() for segment in volume.segments]
        return [segment for segment in every if segment.kind == "snapshot"]

    def _table(self, volume: LogicalVolume, depth: int) -> list[dm.Target]:
        if depth > _DEEPEST:
            raise ValueError(f"{volume.name} is made of itself")
        for snapshot in self._snapshots:
            if volume.name in (snapshot.settings.get("cow_store"), snapshot.settings.get("merging_store")):
                return self._snapshot(volume, snapshot, depth)
        return self._own_table(volume, depth)

    def _own_table(self, volume: LogicalVolume, depth: int) -> list[dm.Target]:
        extent = self.group.extent
        targets = []
        for segment in volume.segments:
            kind, parameters = self._rule(volume, segment, depth)
            targets.append(dm.Target(segment.start * extent, segment.count * extent, kind, parameters))
        return targets

    def _rule(self, volume: LogicalVolume, segment: Segment, depth: int) -> tuple[str, str]:
        """Kind and parameters of the target that is ``segment``."""
        extent = self.group.extent
        match segment.kind:
            case "striped" | "linear":
                stripes = segment.pairs("stripes")
                if not stripes or segment.count % len(stripes):
                    raise ValueError(f"{segment.count} extents in {len(stripes)} stripes")
                share = segment.count // len(stripes)
                places = [self._place(name, first, share, depth) for name, first in stripes]
                return self._striped(segment, places)
            case "raid0" | "raid0_meta":
                names = segment.names("raid0_lvs" if "raid0_lvs" in segment.settings else "raids")
                images = [name for name in names if segment.kind == "raid0" or "_rmeta_" not in name]
                return self._striped(segment, [f"{self._number(name, depth)} 0" for name in images])
            case "raid1" | "mirror" if self.ground.mode != "rw":
                return "linear", f"{self._number(self._leg(segment), depth)} {segment.start * extent}"
            case "thin":
                if "external_origin" in segment.settings:
                    raise self._unknown(volume, "thin with an external origin")
                return "thin", f"{self._number(segment.text('thin_pool'), depth)} {segment.number('device_id')}"
            case "thin-pool":
                return "thin-pool", self._thin_pool(volume, segment, depth)
            case "error" | "zero":
                return segment.kind, ""
        raise self._unknown(volume, segment.kind)

    def _striped(self, segment: Segment, places: list[str]) -> tuple[str, str]:
        if len(places) == 1:
            return "linear", places[0]
        return "striped", f"{len(places)} {segment.number('stripe_size')} {' '.join(places)}"

    def _snapshot(self, volume: LogicalVolume, segment: Segment, depth: int) -> list[dm.Target]:
        if "merging_store" in segment.settings:
            raise self._unknown(volume, "a snapshot that is being merged")
        origin = self._volume(segment.text("origin"))
        number, chunk = self._number(origin.name, depth), segment.number("chunk_size")
        changes = self.ground.map(self._own_table(volume, depth + 1))
        self.ground.below(changes)
        size = origin.extents * self.group.extent
        return [dm.Target(0, size, "snapshot", f"{number} {changes.number} P {chunk}")]

    def _thin_pool(self, volume: LogicalVolume, segment: Segment, depth: int) -> str:
        if self.ground.readonly:
            # Even with its feature read_only the target refuses a metadata device that cannot be written to.
            raise self._invalid(volume, "it is a thin pool, which the kernel must write to", "use mode='overlay'")
        metadata, data = (self._number(segment.text(name), depth) for name in ("metadata", "pool"))
        return f"{metadata} {data} {segment.number('chunk_size')} 0 1 ignore_discard"

    def _leg(self, segment: Segment) -> str:
        """The side of a mirror that is read: one that is there, and was not left behind by the others."""
        if segment.kind == "mirror":
            names = [name for name, _ in segment.pairs("mirrors")]
            if whole := [name for name in names if self._is_there(name)]:
                return whole[0]
            raise _Gone(self._first_gone(names))
        names = segment.names("raids")
        sides = []
        for number, (metadata, image) in enumerate(zip(names[::2], names[1::2], strict=False)):
            if self._is_there(metadata) and self._is_there(image):
                magic, _, _, _, *state = _RAID.unpack(self._first_bytes(metadata, _RAID.size))
                if magic == _RAID_MAGIC:
                    sides.append(_Side(image, number, *state))
        newest = [side for side in sides if side.events == max(other.events for other in sides)]
        failed = {number for side in newest for number in range(64) if side.failed >> number & 1}
        if current := [side for side in newest if side.recovered == _IN_SYNC and side.number not in failed]:
            return current[0].image
        if gone := [name for name in names if not self._is_there(name)]:
            raise _Gone(self._first_gone(gone))
        raise ValueError("no side of the mirror is whole")

    def _parts(self, name: str) -> list[str]:
        """The physical volumes that a volume of plain segments lies on."""
        segments = self._volume(name).segments
        return [part for segment in segments for part, _ in segment.pairs("stripes")]

    def _is_there(self, name: str) -> bool:
        return all(self._block(part) is not None for part in self._parts(name))

    def _first_gone(self, names: list[str]) -> str:
        return next(part for name in names for part in self._parts(name) if self._block(part) is None)

    def _first_bytes(self, name: str, size: int) -> bytes:
        part, extent = self._volume(name).segments[0].pairs("stripes")[0]
        known, block = self.group.physical[part], self._block(part)
        assert block is not None
        data = block.pread(size, (known.start + extent * self.group.extent) * SECTOR)
        if len(data) < size:
            raise ValueError(f"{name} lies behind the end of {part}")
        return data

    def _block(self, physical: str) -> Block | None:
        known = self.group.physical.get(physical)
        return self.blocks.get(known.uuid) if known is not None else None

    def _place(self, name: str, first: int, count: int, depth: int) -> str:
        """Device and sector of ``count`` extents from ``first`` on of a physical or a logical volume."""
        extent = self.group.extent
        known = self.group.physical.get(name)
        if known is None:
            if first + count > self._volume(name).extents:
                raise ValueError(f"extents behind the end of {name}")
            return f"{self._number(name, depth)} {first * extent}"
        if first + count > known.extents:
            raise ValueError(f"extents behind the end of {name}")
        number, start = self._physical_device(name)
        return f"{number} {start + first * extent}"

    def _physical_device(self, name: str) -> tuple[str, int]:
        """Device number of a physical volume, and the sector on it where its extents start."""
        if name not in self._physical:
            known, block = self.group.physical[name], self._block(name)
            if block is None:
                raise _Gone(name)
            if (known.start + known.extents * self.group.extent) * SECTOR > block.size:
                raise ValueError(f"{name} is longer than {block.place}")
            # The device begins where the extents do. It shows no label, and nothing on the machine takes it for a
            # physical volume.
            device, start = block.device(self.ground, known.start * SECTOR)
            self._physical[name] = dm.number_of(device.fd), start // SECTOR
        return self._physical[name]

    def _number(self, name: str, depth: int) -> str:
        """Device number of a logical volume that others are made of."""
        if name not in self._logical:
            if len(self._logical) == _MOST_PARTS:
                raise ValueError(f"it is made of more than {_MOST_PARTS} volumes")
            device = self.ground.map(self._table(self._volume(name), depth + 1))
            self._logical[name] = device.number
            self.ground.below(device)
        return self._logical[name]

    def _volume(self, name: str) -> LogicalVolume:
        if name not in self.group.logical:
            raise ValueError(f"there is no volume {name}")
        return self.group.logical[name]

    def _unknown(self, volume: LogicalVolume, kind: str) -> VolumeInvalid:
        if kind in _MIRRORS:
            hint = "use mode='ro' or mode='overlay', or activate it on attached_image(...) with LVM"
            return self._invalid(volume, f"it is a mirror ({kind}), of which mode 'rw' would write to one side", hint)
        return self._invalid(
            volume, f"its type is {kind}, which is not mapped here", "activate it on attached_image(...) with LVM"
        )

    def _invalid(self, volume: LogicalVolume, reason: str, hint: str) -> VolumeInvalid:
        name = f"{self.group.name}/{volume.name}"
        return VolumeInvalid(image=self.ground.image, reason=f"volume {name}: {reason}", hint=hint)
