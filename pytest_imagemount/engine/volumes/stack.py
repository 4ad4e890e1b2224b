"""From a partition to the file system in it, through as many layers as there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import PassphraseWrong, RequestInvalid, VolumeInvalid, VolumeNotFound
from ..choosing import choose_volume
from ..wanted import LOGICAL_VOLUME
from . import luks, lvm, raid, verity
from .contents import LogicalVolumes, volumes_in
from .ground import DeviceBlock, Ground, ImageBlock
from .kinds import LUKS, LVM, RAID

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..device import Device
    from ..mount import Mount
    from ..reader import Window
    from ..superblock import Superblock
    from ..tables.read import Partition
    from ..undo import UndoStack
    from ..wanted import Wanted
    from .dm import MappedDevice
    from .ground import Block
    from .raid import ArrayDevice

_MOST_LAYERS = 8


@dataclass(frozen=True, slots=True)
class Top:
    """What lies on top: a device of ``size`` bytes and what is on it.

    ``partition`` and ``window`` are those that it was found in; None where it spans several. ``volume`` is the logical
    volume that it is, or lies in.
    """

    device: Device
    size: int
    superblock: Superblock | None
    partition: Partition | None
    window: Window | None
    volume: lvm.VolumeName | None


def build(mount: Mount, undo: UndoStack) -> Top:
    """Open every volume on the way to what ``mount`` wants; each undo goes on ``undo``.

    :raises PassphraseRequired: something is encrypted, and there is no key
    :raises PassphraseWrong: the key does not fit
    :raises VolumeNotFound: there is no such volume
    :raises VolumeInvalid: a volume cannot be put together
    :raises CapabilityMissing: this machine lacks what opens it
    """
    ground = Ground(
        image=mount.image.name,
        disks=[*mount.disks],
        tag=mount.tag,
        mode=mount.wanted.mode,
        folder=mount.workspace.call,
        key=mount.key,
        undo=undo,
        counter=mount.counter,
    )
    return _Stack(ground, mount).build()


class _Stack:
    def __init__(self, ground: Ground, mount: Mount) -> None:
        self._ground = ground
        self._mount = mount
        self._wanted: Wanted = mount.wanted
        self._opened: set[str] = set()
        self._volume = _volume_name(mount.wanted)
        self._top_volume: lvm.VolumeName | None = None

    def build(self) -> Top:
        root = verity.RootHash.parse(self._wanted.verity) if self._wanted.verity is not None else None
        block = self._climb(self._find_volume() if self._wanted.names_volume else self._start(root))
        if root is not None:
            block = self._layer(block, "verity", lambda: verity.open_volume(self._ground, block, root))
        self._require_use()
        device, _ = block.device(self._ground)
        window = block.window if isinstance(block, ImageBlock) else None
        if window is None and block.partition is not None:
            window = block.partition.window
        return Top(device, block.size, block.superblock(), block.partition, window, self._top_volume)

    def _start(self, root: verity.RootHash | None) -> Block:
        """What is wanted of the first image: where the way up begins."""
        if self._wanted.partition in (None, "auto", -1):
            if self._volume is not None:
                return self._find_volume()
            if root is not None and (found := verity.find_data(self._ground, root)):
                return found
        if self._wanted.partition in ("auto", -1) and self._ground.key >= 0:
            encrypted = [block for block in self._ground.candidates() if _kind(block) == LUKS]
            if len(encrypted) == 1:
                return encrypted[0]
        window = self._mount.choose()
        if window is None:
            self._volume = self._mount.logical
            return self._find_volume()
        partition = self._mount.partition
        place = f"partition {partition.number}" if partition else "the disk"
        return ImageBlock(self._mount, window, place, partition)

    def _find_volume(self) -> Block:
        """The device of the volume that the partition is said to be, wherever its group is."""
        assert self._volume is not None
        direct: list[Block] = [block for block in self._ground.candidates() if _kind(block) == LVM]
        groups = lvm.find_groups(self._ground.image, direct)
        if not lvm.has_group(groups, self._volume):
            groups = lvm.find_groups(self._ground.image, [*direct, *self._inside_others()])
        return self._open_lvm(groups)

    def _inside_others(self) -> list[Block]:
        """The physical volumes inside of arrays and, where there is a key, of encrypted volumes."""
        found: list[Block] = []
        arrays: set[str | None] = set()
        refused: PassphraseWrong | None = None
        for block in self._ground.candidates():
            superblock = block.superblock()
            kind = superblock.type if superblock else None
            if kind == LUKS and self._ground.key < 0:
                continue
            if superblock is not None and kind == RAID:
                if superblock.uuid in arrays:
                    continue
                arrays.add(superblock.uuid)
            if kind in (LUKS, RAID):
                try:
                    found.append(self._climb(block, until=LVM))
                except PassphraseWrong as error:
                    refused = error
        if refused is not None and not found:
            raise refused
        return found

    def _climb(self, block: Block, *, until: str | None = None) -> Block:
        """Open volume after volume, until one is none, or is what the caller has not asked for."""
        ground, opens_all = self._ground, not self._wanted.whole
        for _ in range(_MOST_LAYERS):
            kind, below = _kind(block), block
            if kind == until is not None:
                return block
            if kind == LUKS and (opens_all or ground.key >= 0):
                block = self._layer(below, kind, lambda below=below: luks.open_volume(ground, below))  # type: ignore[misc]
            elif kind == RAID:
                block = self._layer(below, kind, lambda below=below: raid.assemble(ground, below))  # type: ignore[misc]
            elif kind == LVM and (opens_all or self._volume is not None):
                block = self._open_lvm(self._groups_with(below))
            else:
                return block
        reason, hint = f"more than {_MOST_LAYERS} volumes lie in each other", "this is not an image of any use"
        raise VolumeInvalid(image=ground.image, reason=reason, hint=hint)

    def _groups_with(self, block: Block) -> list[lvm.FoundGroup[Block]]:
        """The group that ``block`` is of, with all of it that is in the images."""
        blocks = [block, *(one for one in self._ground.candidates() if one != block)]
        groups = lvm.find_groups(self._ground.image, blocks)
        return [found for found in groups if block in found.blocks.values()]

    def _open_lvm(self, groups: list[lvm.FoundGroup[Block]]) -> Block:
        wanted = self._volume or self._only_mountable(groups)
        device, below, self._top_volume = lvm.open_volume(self._ground, groups, wanted)
        return self._made(below, LVM, device, device.size)

    def _only_mountable(self, groups: list[lvm.FoundGroup[Block]]) -> lvm.VolumeName | None:
        """The one volume that a caller who names none means; None where there are several, or none."""
        volumes = volumes_in(self._ground.image, groups)
        if self._wanted.partition in ("auto", -1):
            return choose_volume(self._mount, LogicalVolumes(tuple(volumes)))
        candidates = [one for one in volumes if one.may_be_mountable]
        return candidates[0].volume if len(candidates) == 1 else None

    def _layer(self, below: Block, kind: str, make: Callable[[], MappedDevice | ArrayDevice]) -> Block:
        made = make()
        return self._made(below, kind, made, made.size)

    def _made(self, below: Block, kind: str, device: Device, size: int) -> Block:
        self._ground.settle()
        self._opened.add(kind)
        names = {LUKS: "what is encrypted in", LVM: "the volume in", RAID: "the array of", "verity": "the data in"}
        return DeviceBlock(device, size, self._ground.image, f"{names[kind]} {below.place}", below.partition)

    def _require_use(self) -> None:
        """Return when everything that the caller gave was of use: what it asks for must be what it gets."""
        image, hint = self._ground.image, "leave it out, or choose another partition"
        # Every mount of a system has its key and its images: /boot has seldom any use for them.
        first = self._mount.base is None
        if first and self._ground.key >= 0 and LUKS not in self._opened:
            reason = "a passphrase or key was given, and nothing on the way is encrypted with LUKS"
            raise VolumeInvalid(image=image, reason=reason, hint=hint)
        if self._volume is not None and LVM not in self._opened:
            reason = "there is no physical volume of LVM"
            raise VolumeNotFound(image=image, wanted=str(self._volume), reason=reason, hint=hint)
        if first and len(self._ground.disks) > 1 and not self._opened:
            reason = "several images were given, and the first is no part of an array or a volume group"
            raise VolumeInvalid(image=image, reason=reason, hint="give one image")


def _kind(block: Block) -> str | None:
    found = block.superblock()
    return found.type if found else None


def _volume_name(wanted: Wanted) -> lvm.VolumeName | None:
    if wanted.names_volume:
        if wanted.volume is not None:
            reason = "the partition names a volume already"
            raise RequestInvalid(argument="volume", value=repr(wanted.volume), reason=reason)
        return lvm.VolumeName.parse(str(wanted.partition), "partition", prefix=LOGICAL_VOLUME)
    return None if wanted.volume is None else lvm.VolumeName.parse(wanted.volume, "volume")
