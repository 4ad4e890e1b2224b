"""Which part of an attached image its mount is of: a partition, a logical volume, or the image itself."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .tables.partition_table import Partition
from .tables.selection import select
from .volumes.kinds import LVM
from .wanted import Wanted

if TYPE_CHECKING:
    from .mount import Mount
    from .tables.auto import Candidate
    from .volumes.contents import LogicalVolumes
    from .volumes.lvm import VolumeName


def choose_part(mount: Mount) -> Candidate | None:
    """What ``mount.wanted`` names; None is the image itself.

    :raises PartitionNotFound: there is no such part, or more than one
    """
    wanted = mount.wanted
    whole = wanted.whole and wanted.partition is None
    if not whole or wanted.partition_nodes:  # a disk with a corrupt table can still be attached
        mount.read_table()
    if whole:
        return None
    return select(
        mount.table,
        wanted.partition,
        mount.image.name,
        probe=mount.superblock_in,
        architecture=wanted.architecture,
        looks_like_root=lambda candidate: _looks_like_root(mount, candidate),
        volumes=lambda: logical_volumes_of(mount),
    )


def choose_volume(mount: Mount, logical: LogicalVolumes) -> VolumeName | None:
    """The one of ``logical`` that ``"auto"`` means, where only they are left to choose from; None: there is none.

    :raises PartitionAmbiguous: none, or more than one, holds an installed system
    """
    from .tables.auto import Wish, search
    from .tables.discoverable import architecture_name

    wish = Wish(
        mount.image.name,
        architecture_name(mount.wanted.architecture),
        lambda candidate: _looks_like_root(mount, candidate),
    )
    chosen = search(None, mount.superblock_in, wish, logical)
    assert chosen is None or not isinstance(chosen, Partition)
    return chosen.volume if chosen else None


def logical_volumes_of(mount: Mount) -> LogicalVolumes | None:
    """Those of the images; None where there are none, or the caller has said which layers are in the partition."""
    if mount.wanted.volume is not None or mount.wanted.verity is not None:
        return None
    from .volumes.ground import candidates

    physical = [block for block in candidates(mount.disks) if (found := block.superblock()) and found.type == LVM]
    if not physical:
        return None
    from .volumes.contents import logical_volumes

    return logical_volumes(mount.image.name, physical)


def _looks_like_root(mount: Mount, candidate: Candidate) -> bool:
    """Whether an installed system is in ``candidate``, which is mounted for a moment to see."""
    from .tables.auto import name_of
    from .tables.os_release import has_os_release, has_subvolume_with_os_release

    with mount.also(Wanted(partition=name_of(candidate)), key=mount.key) as look:
        assert look.target is not None
        assert look.device is not None
        root = look.target.open_root(look.device.path)
        try:
            return has_os_release(root) or (look.fstype == "btrfs" and has_subvolume_with_os_release(root))
        finally:
            os.close(root)
