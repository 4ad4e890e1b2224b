"""LVM's metadata, read from the disk: labels of physical volumes, and the volume group that they belong to.

Nothing is asked of LVM itself, and no device is needed: the host's own volume groups never come into it, nor do other
copies of the same image. Source: LVM2's lib/format_text/layout.h and lib/label/label.h.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from ..reader import Window
from . import lvm_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

    from .lvm_text import Section, Value

SECTOR = 512
_LABEL_SECTORS = 4
# struct label_header: "LABELONE", sector, crc of what follows it up to the end of the sector, offset of the contents,
# "LVM2 001".
_LABEL = struct.Struct("<8sQII8s")
_PV_HEADER = struct.Struct("<32sQ")  # id, size of the device
_AREA = struct.Struct("<2Q")  # struct disk_locn: offset, size
_MDA_HEADER = struct.Struct("<I16sI2Q")  # crc, magic, version, start, size
_MDA_MAGIC = b" LVM2 x[5A%r0N*>"
_TEXT = struct.Struct("<2Q2I")  # struct raw_locn: offset, size, crc, flags
_MDA_SIZE = 512
_IGNORED = 1
_LONGEST_TEXT = 4 << 20
"""Bytes; those of some 20,000 volumes."""
_MOST_AREAS = 2
"""Metadata areas of a physical volume: LVM makes no more (pvmetadatacopies in lvm.conf(5))."""
_MOST_EXTENTS = 1 << 40


class Readable(Protocol):
    """Random access to a physical volume."""

    def pread(self, size: int, offset: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Label:
    """The label of a physical volume. ``metadata`` are its metadata areas."""

    uuid: str
    metadata: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class PhysicalVolume:
    """A physical volume as its group knows it: ``start`` of its extents is in sectors, ``extents`` their number."""

    uuid: str
    start: int
    extents: int


@dataclass(frozen=True, slots=True)
class Segment:
    """``count`` extents of a logical volume from ``start`` on, by the rule ``kind`` with its ``settings``."""

    start: int
    count: int
    kind: str
    settings: Section

    def number(self, name: str, default: int | None = None) -> int:
        """The setting of that name.

        :raises ValueError: there is none, or it is no whole number
        """
        return _number(self.settings, name, default)

    def text(self, name: str) -> str:
        """The setting of that name.

        :raises ValueError: there is none, or it is no text
        """
        return _text(self.settings, name)

    def pairs(self, name: str) -> list[tuple[str, int]]:
        """The setting of that name, a list of volumes each followed by an extent.

        :raises ValueError: there is none, or it is no such list
        """
        found = self.settings.get(name)
        if not isinstance(found, list) or len(found) % 2:
            raise ValueError(f"{name} is missing, or no list of pairs")
        return [(_as_text(volume), _as_number(at)) for volume, at in zip(found[::2], found[1::2], strict=True)]

    def names(self, name: str) -> list[str]:
        """The setting of that name, a list of volumes.

        :raises ValueError: there is none, or it is no such list
        """
        found = self.settings.get(name)
        if not isinstance(found, list):
            raise ValueError(f"{name} is missing, or no list")
        return [_as_text(one) for one in found]


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """A logical volume; the parts of others are not ``visible``."""

    name: str
    segments: tuple[Segment, ...]
    visible: bool
    writable: bool
    uuid: str = ""

    @property
    def extents(self) -> int:
        """How many it has."""
        return sum(segment.count for segment in self.segments)


@dataclass(frozen=True, slots=True)
class VolumeGroup:
    """A volume group; ``extent`` is in sectors, ``serial`` grows with every change."""

    name: str
    uuid: str
    serial: int
    extent: int
    physical: Mapping[str, PhysicalVolume] = field(repr=False)
    logical: Mapping[str, LogicalVolume] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The group that ``text`` describes.

        :raises ValueError: it describes none
        """
        found = [(name, section) for name, section in lvm_text.parse(text).items() if isinstance(section, dict)]
        if len(found) != 1:
            raise ValueError(f"it describes {len(found)} volume groups")
        name, group = found[0]
        physical = {
            key: PhysicalVolume(_plain(_text(one, "id")), _number(one, "pe_start"), _number(one, "pe_count"))
            for key, one in _sections(group, "physical_volumes")
        }
        logical = {key: _logical_volume(key, one) for key, one in _sections(group, "logical_volumes")}
        _show_snapshots(logical)
        extent = _number(group, "extent_size")
        if not 0 < extent < 1 << 32:
            raise ValueError(f"extents of {extent} sectors")
        return cls(name, _plain(_text(group, "id")), _number(group, "seqno"), extent, physical, logical)


def read_label(volume: Readable) -> Label | None:
    """The label of the physical volume, None where there is none that is whole."""
    head = volume.pread(_LABEL_SECTORS * SECTOR, 0)
    for sector in range(_LABEL_SECTORS):
        data = head[sector * SECTOR : (sector + 1) * SECTOR]
        if len(data) < SECTOR:
            break
        name, number, crc, offset, kind = _LABEL.unpack_from(data)
        if (name, kind, number) == (b"LABELONE", b"LVM2 001", sector) and _crc(data[20:]) == crc:
            return _label(data, offset)
    return None


def read_group(volume: Readable, label: Label) -> VolumeGroup | None:
    """The newest description of its group that the physical volume holds; None where it holds none.

    :raises ValueError: there is one, and it is damaged
    """
    groups, damage = [], None
    for area in label.metadata:
        try:
            if text := _text_in(volume, area):
                groups.append(VolumeGroup.parse(text))
        except ValueError as error:
            damage = error
    if not groups and damage is not None:
        raise damage
    return max(groups, key=lambda group: group.serial, default=None)


def _label(data: bytes, offset: int) -> Label | None:
    try:
        uuid, _ = _PV_HEADER.unpack_from(data, offset)
        place = offset + _PV_HEADER.size
        lists: list[list[Window]] = [[], []]  # where the data are, where the metadata are
        for areas in lists:
            while (area := _AREA.unpack_from(data, place)) != (0, 0):
                areas.append(Window(*area))
                place += _AREA.size
            place += _AREA.size
    except struct.error:
        return None
    return Label(uuid.decode("ascii", "replace"), tuple(lists[1][:_MOST_AREAS]))


def _text_in(volume: Readable, area: Window) -> str | None:
    """The text in a metadata area, which is a ring behind its header; None where it is empty."""
    header = volume.pread(_MDA_SIZE, area.offset)
    if len(header) < _MDA_SIZE:
        raise ValueError("a metadata area lies behind the end of the disk")
    crc, magic, version, start, size = _MDA_HEADER.unpack_from(header)
    if magic != _MDA_MAGIC or version != 1 or _crc(header[4:]) != crc:
        raise ValueError("the header of a metadata area is damaged")
    offset, length, text_crc, flags = _TEXT.unpack_from(header, _MDA_HEADER.size)
    if not offset or flags & _IGNORED:
        return None
    if not (_MDA_SIZE <= offset < size and 0 < length <= min(size - _MDA_SIZE, _LONGEST_TEXT)):
        raise ValueError("the metadata lie outside of their area")
    first = min(length, size - offset)
    data = volume.pread(first, start + offset) + volume.pread(length - first, start + _MDA_SIZE)
    if _crc(data) != text_crc:
        raise ValueError("the metadata do not fit their checksum")
    return data.rstrip(b"\0").decode("utf-8", "replace")


def _crc(data: bytes) -> int:
    """CRC-32 as LVM has it: another start, and no inversion."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def _logical_volume(name: str, section: Section) -> LogicalVolume:
    segments = tuple(
        Segment(_number(one, "start_extent"), _number(one, "extent_count"), _text(one, "type"), one)
        for _, one in sorted(_numbered(section), key=lambda pair: pair[0])
    )
    reached = 0
    for segment in segments:
        if segment.start != reached or segment.count <= 0:
            raise ValueError(f"the segments of {name} have gaps, or overlap")
        reached += segment.count
    if not 0 < reached < _MOST_EXTENTS or len(segments) != _number(section, "segment_count"):
        raise ValueError(f"segments of {name} are missing")
    status = section.get("status")
    flags = status if isinstance(status, list) else [status]
    uuid = section.get("id", "")
    return LogicalVolume(
        name, segments, "VISIBLE" in flags, "WRITE" in flags, _plain(uuid) if isinstance(uuid, str) else ""
    )


def _show_snapshots(volumes: dict[str, LogicalVolume]) -> None:
    """A snapshot is two volumes: a visible one without a name of its own, a hidden one with the name and the data."""
    for name, volume in list(volumes.items()):
        stored = volume.segments[0].settings.get("cow_store") if volume.segments[0].kind == "snapshot" else None
        if isinstance(stored, str) and stored in volumes:
            volumes[name] = replace(volume, visible=False)
            volumes[stored] = replace(volumes[stored], visible=True)


def _numbered(section: Section) -> Iterator[tuple[int, Section]]:
    for key, value in section.items():
        if key.startswith("segment") and key[7:].isdecimal() and isinstance(value, dict):
            yield int(key[7:]), value


def _sections(section: Section, name: str) -> Sequence[tuple[str, Section]]:
    inside = section.get(name, {})
    if not isinstance(inside, dict):
        raise ValueError(f"{name} is no section")
    return [(key, value) for key, value in inside.items() if isinstance(value, dict)]


def _number(section: Section, name: str, default: int | None = None) -> int:
    found = section.get(name, default)
    if not isinstance(found, int) or not 0 <= found < 1 << 63:
        raise ValueError(f"{name} is missing, or no number")
    return found


def _text(section: Section, name: str) -> str:
    found = section.get(name)
    if not isinstance(found, str):
        raise ValueError(f"{name} is missing, or no text")
    return found


def _as_number(value: Value) -> int:
    if not isinstance(value, int) or not 0 <= value < _MOST_EXTENTS:
        raise ValueError(f"no extent: {value!r}")
    return value


def _as_text(value: Value) -> str:
    if not isinstance(value, str):
        raise ValueError(f"no name: {value!r}")
    return value


def _plain(uuid: str) -> str:
    """As a label has it: without dashes."""
    return uuid.replace("-", "")
