"""What the layers of one mount are built on and with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..reader import FileReader, Reader, Window
from ..superblock import probe
from . import dm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from ..device import Device
    from ..image import Image
    from ..superblock import Superblock
    from ..tables.read import Partition, PartitionTable
    from ..undo import UndoStack


class Disk(Protocol):
    """An image that is attached: its bytes can be read, and windows of it can become block devices."""

    image: Image
    reader: Reader | None

    def read_table(self) -> PartitionTable | None: ...

    def superblock_in(self, window: Window) -> Superblock | None: ...

    def make_device(self, undo: UndoStack, window: Window) -> Device: ...


@dataclass(frozen=True)
class ImageBlock:
    """A window of an image, which volumes may lie in.

    :param place: what it is, for messages: ``partition 2``
    :param partition: the partition that it is, or lies in
    """

    disk: Disk
    window: Window
    place: str
    partition: Partition | None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.window.size

    def pread(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset``; fewer only at its end."""
        assert self.disk.reader is not None
        size = max(0, min(size, self.window.size - offset))
        return self.disk.reader.pread(size, self.window.offset + offset)

    def superblock(self) -> Superblock | None:
        """What is in it."""
        return self.disk.superblock_in(self.window)

    def device(self, ground: Ground, skip: int = 0) -> tuple[Device, int]:
        """A device, registered with ``ground``, and where on it is byte ``skip``; nothing before that is on it."""
        window = Window(self.window.offset + skip, self.window.size - skip)
        return ground.below(self.disk.make_device(ground.undo, window)), 0


@dataclass(frozen=True)
class DeviceBlock:
    """A device that was made of others, and that volumes may lie in; ``place`` and ``partition`` as above."""

    made: Device
    size: int
    image: str
    place: str
    partition: Partition | None = None

    def pread(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset``; fewer only at its end."""
        return FileReader(self.made.fd, self.size).pread(size, offset)

    def superblock(self) -> Superblock | None:
        """What is in it."""
        return probe(self.made.fd, Window(0, self.size), image=self.image)

    def device(self, ground: Ground, skip: int = 0) -> tuple[Device, int]:
        """The device itself, registered with ``ground``, and ``skip``."""
        return ground.below(self.made), skip


Block = ImageBlock | DeviceBlock
"""A run of bytes that a volume may lie in."""


@dataclass
class Ground:
    """What is the same for every layer of one mount.

    :param image: the image's name, for messages
    :param disks: every image, attached
    :param tag: ``TOKEN:NUMBER``, by which what is made is known as this mount's
    :param folder: of our own, for device nodes that ``/dev`` does not have
    :param counter: of what is made with that tag
    :param key: descriptor of a file with the passphrase or key; -1: there is none
    """

    image: str
    disks: list[Disk]
    tag: str
    mode: str
    folder: Path
    key: int
    undo: UndoStack
    counter: Iterator[int]
    _below: list[Device] = field(default_factory=list)

    @property
    def readonly(self) -> bool:
        """Whether nothing is to be written anywhere."""
        return self.mode == "ro"

    def new_name(self) -> str:
        """A name for a mapping that no other has, and that tells whose it is."""
        return dm.name_of(self.tag, next(self.counter))

    def new_array_name(self) -> str:
        """The same for an array."""
        from .raid import array_name

        return array_name(self.tag, next(self.counter))

    def map(self, targets: list[dm.Target], *, readonly: bool | None = None) -> dm.MappedDevice:
        """A mapping with that table, on devices that :meth:`below` was told of; the undo is registered."""
        name, readonly = self.new_name(), self.readonly if readonly is None else readonly
        return self.adopt(dm.create(name, targets, image=self.image, readonly=readonly, node_folder=self.folder))

    def adopt(self, device: dm.MappedDevice) -> dm.MappedDevice:
        """Register the undo of a mapping that was made with :meth:`new_name`."""
        self.undo.push(f"remove the mapping {device.name}", device.detach)
        return device

    def below(self, device: Device) -> Device:
        """Note that the layer that is being made is to lie on ``device``."""
        if device not in self._below:
            self._below.append(device)
        return device

    def settle(self) -> None:
        """The layer is made, and holds what is below: let go of that. The kernel takes it down with the layer."""
        while self._below:
            self._below.pop().arm()

    def candidates(self) -> list[ImageBlock]:
        """What volumes may lie in."""
        return candidates(self.disks)


def candidates(disks: Sequence[Disk]) -> list[ImageBlock]:
    """Every partition of every disk, and every disk that has no partition table."""
    found = []
    for index, disk in enumerate(disks):
        assert disk.reader is not None
        of_disk = f" of image {disk.image.name!r}" if index else ""
        table = disk.read_table()
        if table is None:
            found.append(ImageBlock(disk, Window(0, disk.reader.size), f"the disk{of_disk}"))
            continue
        for partition in table.partitions:
            if not partition.container:
                place = f"partition {partition.number}{of_disk}"
                found.append(ImageBlock(disk, partition.window, place, partition))
    return found
