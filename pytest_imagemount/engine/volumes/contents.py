"""What runs of bytes of an image hold, down to the logical volumes of LVM: read from the image, no device is made."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ...errors import ImageMountError
from ..reader import Window
from ..superblock import probe_on
from ..wanted import LOGICAL_VOLUME
from .lvm import FoundGroup, Physical, Readable, VolumeName, find_groups
from .lvm_metadata import SECTOR

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..reader import Reader
    from ..superblock import Superblock
    from . import lvm_metadata

_MOST_SHOWN = 255
_LARGEST = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Volume:
    """What a run of bytes holds: a superblock, or None where none is known, or why it could not be read."""

    superblock: Superblock | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A logical volume of LVM.

    :param size: bytes
    :param kind: LVM's word for how it is made: ``linear``, ``striped``, ``raid1``, ``thin``, …
    :param uuid: that of its device, as ``LVM-…``
    :param content: None where it is not looked into, which only ``linear`` ones are
    """

    volume: VolumeName
    size: int
    kind: str
    content: Volume | None
    uuid: str = ""

    @property
    def name(self) -> str:
        """As ``partition=`` takes it: ``lv:vg/root``."""
        return f"{LOGICAL_VOLUME}{self.volume}"

    @property
    def superblock(self) -> Superblock | None:
        """What is in it, as far as that is known."""
        return self.content.superblock if self.content else None

    @property
    def may_be_mountable(self) -> bool:
        """It holds a file system; or may hold one, for it is not looked into."""
        if self.content is None:
            return not self.kind.endswith("-pool")
        return self.superblock is not None and self.superblock.mountable


@dataclass(frozen=True, slots=True)
class LogicalVolumes:
    """Those of an image; ``error``: why they cannot be told."""

    found: tuple[LogicalVolume, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    """A window of the disk that LVM calls a physical volume; ``place`` is what it is, for messages."""

    reader: Reader
    window: Window
    place: str
    found: Superblock | None

    def pread(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset``; fewer only at its end."""
        size = max(0, min(size, self.window.size - offset))
        return self.reader.pread(size, self.window.offset + offset)

    def superblock(self) -> Superblock | None:
        """What is in it."""
        return self.found


def look(reader: Reader, window: Window, image: str) -> Volume:
    """What ``window`` holds."""
    try:
        return Volume(probe_on(reader, window, image=image))
    except ImageMountError as error:
        return Volume(None, str(error))


def logical_volumes(image: str, physical: Iterable[Readable]) -> LogicalVolumes:
    """Those of every group that some of ``physical`` are of; ``error`` where a label or the metadata are damaged."""
    try:
        return LogicalVolumes(tuple(volumes_in(image, find_groups(image, physical))))
    except ImageMountError as error:
        return LogicalVolumes(error=str(error))


def volumes_in(image: str, groups: Iterable[FoundGroup[Physical]]) -> list[LogicalVolume]:
    """The visible volumes of ``groups``, up to a bound."""
    every = ((found, one) for found in groups for one in found.group.logical.values() if one.visible)
    return [_logical_volume(image, found, volume) for found, volume in islice(every, _MOST_SHOWN)]


def _logical_volume(image: str, found: FoundGroup[Physical], volume: lvm_metadata.LogicalVolume) -> LogicalVolume:
    name = VolumeName(found.group.name, volume.name)
    size = volume.extents * found.group.extent * SECTOR
    kinds = ", ".join(dict.fromkeys(_kind(segment) for segment in volume.segments))
    try:
        if size > _LARGEST:
            raise ValueError(f"no device has {size} bytes")
        pieces = [_piece(found, segment) for segment in volume.segments] if kinds == "linear" else None
        content = look(_InPieces(size, pieces), Window(0, size), image) if pieces else None
    except ValueError as error:
        content = Volume(None, str(error))
    return LogicalVolume(name, size, kinds, content, f"LVM-{found.group.uuid}{volume.uuid}")


def _kind(segment: lvm_metadata.Segment) -> str:
    # LVM calls what lies in one piece a stripe of one.
    return "linear" if segment.kind == "striped" and segment.settings.get("stripe_count") == 1 else segment.kind


def _piece(found: FoundGroup[Physical], segment: lvm_metadata.Segment) -> _Piece:
    """:raises ValueError: its physical volume is not there, or the metadata are damaged"""
    (name, first), *_ = segment.pairs("stripes") or [("", 0)]
    known = found.group.physical.get(name)
    block = found.blocks.get(known.uuid) if known is not None else None
    if known is None or block is None:
        raise ValueError(f"a part of it is on {name}, which is not in the image")
    extent = found.group.extent * SECTOR
    window = Window(segment.start * extent, segment.count * extent)
    return _Piece(window, block, known.start * SECTOR + first * extent)


@dataclass(frozen=True, slots=True)
class _Piece:
    """``window`` of a volume is on ``block``, from byte ``start`` on."""

    window: Window
    block: Readable
    start: int

    def pread(self, first: int, end: int) -> bytes:
        """What it has of the volume's bytes from ``first`` up to ``end``."""
        first, end = max(first, self.window.offset), min(end, self.window.end)
        if first >= end:
            return b""
        return self.block.pread(end - first, self.start + first - self.window.offset).ljust(end - first, b"\0")


@dataclass(frozen=True, slots=True)
class _InPieces:
    """The bytes of a volume that is made of ``pieces``, in order."""

    size: int
    pieces: list[_Piece]

    def pread(self, size: int, offset: int) -> bytes:
        return b"".join(piece.pread(offset, offset + size) for piece in self.pieces)
