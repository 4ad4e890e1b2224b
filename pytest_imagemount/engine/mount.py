"""Mount: one image's way from a file to a mounted file system in three stages, and back.

``attach`` makes the bytes of the virtual disk readable, ``map`` chooses the partition and makes a block device of
just that window, or of the volume in it, ``mount`` mounts the file system on it.
"""

from __future__ import annotations

import os
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ..errors import RequestInvalid
from . import filesystems
from .choosing import choose_part
from .filesystem_lock import lock_filesystem, needs_turns
from .filesystem_mount import Filesystem, not_mountable
from .image_lock import lock_image
from .reader import FileReader, Reader, Window
from .shared_device import SharedDevice
from .stages import Stages, State
from .superblock import Superblock, probe, probe_on
from .tables.partition_table import Partition
from .tables.read import read_table
from .target import Target
from .unmounting import filesystem_at, unmount_from
from .volumes.kinds import VOLUMES
from .wanted import LOGICAL_VOLUME, Wanted
from .workspace import Owner, Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .adopt import AdoptedMount
    from .device import Device
    from .image import Image
    from .tables.read import PartitionTable
    from .undo import UndoStack
    from .volumes.lvm import VolumeName


class Mount(Stages):
    """The three stages for one image. The subclasses differ in how bytes become a block device.

    Use it as a context manager for all three, or call ``attach``, ``map``, ``mount`` and ``unmount``, ``unmap``,
    ``detach`` one by one.

    :param wanted: which part of the image, and mounted how; None is all of it, read-only
    :param mountpoint: an existing empty folder, as a path or as the descriptor that a :class:`~.target.Target` holds;
        None makes one in the workspace
    :param number: of this mount in its workspace, for its ``tag``; None takes the next
    :param members: further disks of the same array, volume group or verified device
    :param key: descriptor of a file with the passphrase or key of an encrypted volume; -1: there is none
    :param base: a mount of the same image that has it attached, and is closed after this one: its attachment serves
    """

    backend: ClassVar[str]

    def __init__(
        self,
        image: Image,
        workspace: Workspace,
        wanted: Wanted | None = None,
        *,
        mountpoint: Path | Target | None = None,
        owner: Owner | None = None,
        number: int | None = None,
        members: Sequence[Image] = (),
        key: int = -1,
        base: Mount | None = None,
    ) -> None:
        super().__init__(f"image {image.name!r}")
        self.image = image
        self.workspace = workspace
        self.wanted = wanted or Wanted()
        self.flags, self.data = filesystems.split_options(self.wanted.options)
        self.wanted_target = Target.at(mountpoint) if isinstance(mountpoint, Path) else mountpoint
        self.target = self.wanted_target
        self.number = workspace.next_number() if number is None else number
        self.tag = f"{workspace.token}:{self.number}"
        self.counter = count(1)
        """Tells apart what is made with that tag."""
        self.owner = owner or Owner(os.getpid())
        self.reader: Reader | None = None
        self.table: PartitionTable | None = None
        self.partition: Partition | None = None
        self.window: Window | None = None
        self.logical: VolumeName | None = None
        """What ``"auto"``, ``LABEL=`` or ``UUID=`` turned out to mean, where that is no partition."""
        self.volume: VolumeName | None = None
        """The logical volume that is mapped."""
        self._in_disk: Window | None = None  # which the device is, where it is no volume
        self.superblock: Superblock | None = None
        self.members = tuple(members)
        self.key = key
        self.base = base
        self.family: list[Mount] = []
        self.disks: list[Mount] = [self]
        self.device: Device | None = None
        self.size = 0
        self.nodes: dict[int, Path] = {}
        self.fstype = ""
        self.dirty = False
        self._found = workspace.findings.of(image, self.wanted.mode)

    @staticmethod
    def for_format(
        image: Image,
        workspace: Workspace,
        wanted: Wanted | None = None,
        *,
        backend: str = "auto",
        mountpoint: Path | Target | None = None,
        owner: Owner | None = None,
        number: int | None = None,
        members: Sequence[Image] = (),
        key: int = -1,
    ) -> Mount:
        """The driver for ``image``: raw goes through loop; every other format, and ``overlay``, through NBD or FUSE.

        :raises RequestInvalid: ``backend`` cannot serve this format
        :raises CapabilityMissing: ``backend`` is not to be had on this machine
        """
        from .backends import choose

        wanted = wanted or Wanted()
        module, name = choose(backend, image, wanted.mode)
        driver: type[Mount] = getattr(import_module(module), name)
        return driver(
            image,
            workspace,
            wanted,
            mountpoint=mountpoint,
            owner=owner,
            number=number,
            members=members,
            key=key,
        )

    @staticmethod
    def for_device(device: str | os.PathLike[str]) -> AdoptedMount:
        """The driver for a device that is attached already: its state is adopted, so that it can be torn down.

        ``device`` may be a whole device (``/dev/loop3``, ``/dev/nbd0``), the kernel's partition node
        (``/dev/nbd0p1``, ``/dev/loop3p2``) or one of the device mapper's (``/dev/mapper/nbd0p1``).
        """
        from .adopt import adopt

        return adopt(device)

    def also(
        self,
        wanted: Wanted,
        *,
        mountpoint: Target | None = None,
        owner: Owner | None = None,
        number: int | None = None,
        key: int = -1,
    ) -> Mount:
        """A further mount of this image, which is attached and stays so until that one is closed."""
        further = type(self)(
            self.image,
            self.workspace,
            wanted,
            mountpoint=mountpoint,
            owner=owner or self.owner,
            number=self.number if number is None else number,
            key=key,
            base=self,
        )
        if number is None:
            further.counter = self.counter  # with the same tag, no name may come twice
        return further

    @property
    def mountpoint(self) -> Path | None:
        """Where it is mounted, or will be; None before the workspace has made a place."""
        return self.target.path if self.target else None

    @property
    def _readonly(self) -> bool:
        return self.wanted.readonly

    def attach(self) -> None:
        """image → readable bytes of the virtual disk (``reader``).

        :raises ImageLocked: others hold the image in a way that excludes ``mode``
        """
        self._require("attach", State.NEW)
        with self._stage(State.ATTACHED) as undo:
            if self.base is not None:
                self._share(self.base)
                return
            lock = lock_image(self.image.fd, self.image.name, exclusive=self.wanted.mode == "rw")
            undo.push("unlock the image", lock.release)
            self.reader = self._attach(undo)
            for member in self.members:
                self._attach_member(member, undo)

    def map(self) -> None:
        """virtual disk → block device of the chosen partition (``device``)."""
        self._require("map", State.ATTACHED)
        self.partition = self.window = self._in_disk = self.logical = self.volume = None
        with self._stage(State.MAPPED) as undo:
            if self._share_device():
                return
            window = None if self._asks_for_volume else self.choose()
            if window is None:
                if self.wanted.partition_nodes:
                    reason = "a volume has no partition nodes; leave out partitions="
                    raise RequestInvalid(argument="partitions", value="True", reason=reason)
                self._map_volume(undo)
            else:
                self._map_window(undo, window)
            assert self.device is not None
            if self.wanted.partition_nodes and self.table:
                from .tables.partition_nodes import add_nodes

                self.nodes = add_nodes(self.device, self.table, undo)

    def mount(self) -> None:
        """block device → file system at ``mountpoint``."""
        self._require("mount", State.MAPPED)
        assert self.device is not None
        with self._stage(State.MOUNTED) as undo:
            if self.base is not None:
                family = self.base.family
                family.append(self)
                undo.push("leave the other mounts", lambda: family.remove(self))
            self.fstype = self._identify()
            self._take_turn(undo)
            target = self.wanted_target or self.workspace.make_mountpoint(
                undo, is_device_gone=lambda: not self._is_attached()
            )
            self._mount(self.device, target, self.fstype)
            device, number = self.device.path, filesystem_at(target)
            undo.push(f"unmount {target.path}", lambda: unmount_from(device, number, target))
            self.device.arm()
            self.target = target

    def cut_off(self) -> None:
        """Called when what serves the image has died: fail what waits for it. Only the undo detaches the device."""

    # What the subclasses decide.

    def _attach(self, undo: UndoStack) -> Reader:
        """Make the virtual disk's bytes readable; register each undo."""
        raise NotImplementedError

    def _map(self, undo: UndoStack, window: Window) -> Device:
        """Make a block device of ``window``; register its undo."""
        raise NotImplementedError

    def _share(self, base: Mount) -> None:
        """Use what ``base`` has attached."""
        self.reader, self._found = base.reader, base._found
        self.disks = [self, *base.disks[1:]]

    # What volumes are made of.

    def read_table(self) -> PartitionTable | None:
        """The disk's partition table, None where it has none; the disk must be attached."""
        reader = self.reader
        assert reader is not None
        self.table = self._found.table(lambda: read_table(reader, self.image.name))
        return self.table

    def superblock_in(self, window: Window) -> Superblock | None:
        """What is in ``window`` of the disk, which must be attached."""
        reader = self.reader
        assert reader is not None
        return self._found.superblock(
            window, lambda: probe_on(reader, window, image=self.image.name), whole=isinstance(reader, FileReader)
        )

    def make_device(self, undo: UndoStack, window: Window) -> Device:
        """A block device of ``window`` of the disk; its undo goes on ``undo``."""
        return self._map(undo, window)

    # What they share.

    @property
    def _asks_for_volume(self) -> bool:
        wanted = self.wanted
        asks = wanted.volume is not None or wanted.verity is not None or wanted.names_volume
        return asks or self.key >= 0 or bool(self.members)

    def _attach_member(self, image: Image, undo: UndoStack) -> None:
        wanted = Wanted(mode=self.wanted.mode, whole=True, overlay_size=self.wanted.overlay_size)
        disk = Mount.for_format(image, self.workspace, wanted, owner=self.owner, number=self.number)
        undo.push(f"close image {image.name!r}", disk.close)
        disk.attach()
        self.disks.append(disk)
        undo.push(f"forget image {image.name!r}", lambda: self.disks.remove(disk))

    def _share_device(self) -> bool:
        """Use the device of another mount of this image, where one is of the same part of it."""
        if self.base is None or self.wanted.whole:
            return False
        if not self.wanted.names_volume:
            self.choose()
        for other in (self.base, *self.base.family):
            if other.device is not None and other.state is State.MOUNTED and other._part == self._part:
                self.device, self.superblock, self.size = SharedDevice(other.device), other.superblock, other.size
                self.partition, self.window, self.volume = other.partition, other.window, other.volume
                return True
        return False

    @property
    def _part(self) -> tuple[object, ...]:
        """What tells one part of the image from another."""
        wanted = self.wanted
        if wanted.volume is None and (volume := self.volume or self.logical) is not None:
            return (f"{LOGICAL_VOLUME}{volume}",)
        return (wanted.partition,) if wanted.names_volume else (self.window, wanted.volume, wanted.verity)

    @property
    def part(self) -> int | str | None:
        """What is mapped, as ``partition=`` takes it; None is the image itself."""
        if self.volume is not None:
            return f"{LOGICAL_VOLUME}{self.volume}"
        return self.partition.number if self.partition else None

    def _map_window(self, undo: UndoStack, window: Window) -> None:
        """Make a device of the chosen window, or, to mount it, of the volume that is in it."""
        reader = self.reader
        to_mount = not self.wanted.whole
        if to_mount and isinstance(reader, FileReader):
            # Not through the device: its page cache is cold, which cost 1.6 ms where the file's costs 0.2 ms.
            self.superblock = self.superblock_in(window)
            if self._is_volume:
                return self._map_volume(undo)
        device = self.device = self._map(undo, window)
        self.size, self._in_disk = window.size, window
        if to_mount and not isinstance(reader, FileReader):
            whole = Window(0, window.size)
            probed = self._found.superblock(window, lambda: probe(device.fd, whole, image=self.image.name))
            self.superblock = probed
            if self._is_volume:
                undo.close(self._subject)
                self._map_volume(undo)
        return None

    @property
    def _is_volume(self) -> bool:
        found = self.superblock
        return self.wanted.fstype is None and found is not None and found.type in VOLUMES

    def _map_volume(self, undo: UndoStack) -> None:
        from .volumes.stack import build

        top = build(self, undo)
        self.device, self.superblock, self.size = top.device, top.superblock, top.size
        self.partition, self.window, self._in_disk, self.volume = top.partition, top.window, None, top.volume

    def choose(self) -> Window | None:
        """Find the partition that is wanted, and say what is its window of the disk, which must be attached.

        None: it is no partition, but the logical volume ``logical``.
        """
        if self.window is not None or self.logical is not None:
            return self.window
        assert self.reader is not None
        chosen = choose_part(self)
        if chosen is None:
            self.window = Window(0, self.reader.size)
        elif isinstance(chosen, Partition):
            self.partition, self.window = chosen, chosen.window
        else:
            self.logical = chosen.volume
        return self.window

    def _identify(self) -> str:
        """The file system type: as the caller says, else as in the superblock.

        :raises FilesystemNotMountable: saying what is there instead
        """
        if self.wanted.fstype is not None:
            return self.wanted.fstype
        found = self.superblock
        if found is None or not found.mountable:
            raise not_mountable(self.image.name, self.part, found)
        return found.type

    def _take_turn(self, undo: UndoStack) -> None:
        """Lock the file system, where this kernel mounts it once only.

        :raises FilesystemLocked: others have it mounted
        """
        if isinstance(self.device, SharedDevice):
            return  # its owner has the lock
        if self.superblock and self.superblock.uuid and needs_turns(self.fstype):
            lock = lock_filesystem(self.fstype, self.superblock.uuid, self.image.name)
            undo.push(f"unlock the {self.fstype}", lock.release)

    def _is_mounted(self) -> bool:
        return self.device is not None and self.target is not None and self.target.shows(self.device.path)

    def _is_attached(self) -> bool:
        return self.device is not None and self.device.attached

    def _mount(self, device: Device, target: Target, fstype: str) -> None:
        filesystem = Filesystem(
            self.image.name,
            self.part,
            fstype,
            self.flags,
            self.data,
            readonly=self._readonly,
            subvolume=self.wanted.subvolume,
        )
        self.dirty = filesystem.mount(device, target, lambda size: self._head(device, size))

    def _head(self, device: Device, size: int) -> bytes:
        """The first bytes of what is mounted; as :meth:`_map_window`, not through the device where there is a file."""
        if self._in_disk is not None and isinstance(self.reader, FileReader):
            return self.reader.pread(min(size, self._in_disk.size), self._in_disk.offset)
        fd = os.open(device.node, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, size, 0)
        finally:
            os.close(fd)
