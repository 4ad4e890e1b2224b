"""What is known about a mounted image or an attached device: plain values that travel between processes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class MountFacts:
    """One file system of an image, mounted.

    :param source: the image file, absolute
    :param format: as qemu names it: ``raw``, ``qcow2``, …
    :param partition: its number in the table; None where the image itself holds the file system
    :param volume: the logical volume of LVM that it is in, as ``vg/root``; None where it is in none
    :param device: the block device, as ``/dev/loop3``
    :param fstype: as the kernel names it: ``ext4``, ``vfat``, …
    :param label: of the file system; None where it has none
    :param uuid: of the file system, as blkid prints it; None where it has none
    :param mode: ``ro``, ``overlay`` or ``rw``
    :param backend: ``loop``, ``nbd`` or ``fuse``
    :param mountpoint: the folder on this machine
    :param dirty: its journal was not replayed: the files are as they were at the moment of a crash
    """

    source: Path
    format: str
    partition: int | None
    device: str
    fstype: str
    label: str | None
    uuid: str | None
    mode: str
    backend: str
    mountpoint: Path
    dirty: bool = False
    volume: str | None = None

    @property
    def part(self) -> int | str | None:
        """Where in the image it is, as ``partition=`` takes it: a number, ``lv:vg/root``, None for the image itself."""
        return _part(self)

    def to_wire(self) -> dict[str, Any]:
        """The facts as JSON values."""
        return {**_values(self), "source": str(self.source), "mountpoint": str(self.mountpoint)}

    @classmethod
    def from_wire(cls, value: Mapping[str, Any]) -> Self:
        """The facts that :meth:`to_wire` described."""
        return cls(**{**value, "source": Path(value["source"]), "mountpoint": Path(value["mountpoint"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFacts:
    """An image, or one partition of it, attached as a block device and not mounted.

    :param path: the device node, as ``/dev/loop3``
    :param source: the image file, absolute
    :param format: as qemu names it: ``raw``, ``qcow2``, …
    :param partition: its number in the table; None where the device is the whole image
    :param volume: the logical volume of LVM that it is, as ``vg/root``; None where it is none
    :param size: of the device, in bytes
    :param mode: ``ro``, ``overlay`` or ``rw``
    :param backend: ``loop``, ``nbd`` or ``fuse``
    :param partitions: number and device node of each partition, where nodes were asked for
    """

    path: Path
    source: Path
    format: str
    partition: int | None
    size: int
    mode: str
    backend: str
    partitions: tuple[tuple[int, Path], ...] = ()
    volume: str | None = None

    @property
    def part(self) -> int | str | None:
        """As :attr:`MountFacts.part`."""
        return _part(self)

    def to_wire(self) -> dict[str, Any]:
        """The facts as JSON values."""
        nodes = [[number, str(node)] for number, node in self.partitions]
        return {**_values(self), "path": str(self.path), "source": str(self.source), "partitions": nodes}

    @classmethod
    def from_wire(cls, value: Mapping[str, Any]) -> Self:
        """The facts that :meth:`to_wire` described."""
        nodes = tuple((int(number), Path(node)) for number, node in value["partitions"])
        paths = {name: Path(value[name]) for name in ("path", "source")}
        return cls(**{**value, **paths, "partitions": nodes})


def _part(facts: MountFacts | DeviceFacts) -> int | str | None:
    return facts.partition if facts.volume is None else f"lv:{facts.volume}"


def _values(facts: MountFacts | DeviceFacts) -> dict[str, Any]:
    return {field.name: getattr(facts, field.name) for field in fields(facts)}
