"""The file systems that the factory makes, one module each; :data:`KINDS` is the whole list."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...errors import RequestInvalid
from ..sizes import KIB, MIB, round_up
from .btrfs import KIND as BTRFS
from .erofs import KIND as EROFS
from .ext import KIND as EXT
from .squashfs import KIND as SQUASHFS
from .swap import KIND as SWAP
from .vfat import KIND as VFAT
from .volume import FilesystemKind, Volume, check_content
from .xfs import KIND as XFS

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KINDS", "FilesystemKind", "Volume", "make_filesystem"]

KINDS: dict[str, FilesystemKind] = {
    "ext2": EXT,
    "ext3": EXT,
    "ext4": EXT,
    "vfat": VFAT,
    "xfs": XFS,
    "btrfs": BTRFS,
    "squashfs": SQUASHFS,
    "erofs": EROFS,
    "swap": SWAP,
}


def make_filesystem(volume: Volume, target: Path, scratch: Path) -> None:
    """Make the file system ``volume`` in the new file ``target``, by means of the new folder ``scratch``.

    ``target`` then has ``volume.size`` bytes, or when that is None, the default size of the kind.

    :raises RequestInvalid: the kind is unknown, or cannot hold what is asked for
    :raises ProgramFailed: a program that makes it failed, or is not installed
    """
    kind = KINDS.get(volume.fstype)
    if kind is None:
        known = ", ".join(KINDS)
        raise RequestInvalid(argument="fstype", value=repr(volume.fstype), reason=f"is not one of: {known}")
    if len(volume.label.encode()) > kind.label_limit:
        reason = f"a label of {volume.fstype} has at most {kind.label_limit} bytes"
        raise RequestInvalid(argument="label", value=repr(volume.label), reason=reason)
    check_content(volume, kind)
    size = volume.size
    if size is not None and size < kind.minimum:
        least = f"{kind.minimum // MIB}M" if kind.minimum >= MIB else f"{kind.minimum // KIB}K"
        raise RequestInvalid(argument="size", value=str(size), reason=f"{volume.fstype} needs at least {least}")
    scratch.mkdir()
    if not kind.sized:
        kind.make(volume, target, scratch)
        _pad(target, volume)
        return
    with target.open("xb") as file:
        os.truncate(file.fileno(), size or round_up(kind.default_size(volume.tree), MIB))
    kind.make(volume, target, scratch)
    if size is not None:
        # mkfs.btrfs --rootdir makes a file longer that is too small for it.
        _check_size(target, volume, size)


def _pad(target: Path, volume: Volume) -> None:
    if volume.size is not None:
        _check_size(target, volume, volume.size)
    os.truncate(target, volume.size or round_up(target.stat().st_size, volume.sector_size))


def _check_size(target: Path, volume: Volume, size: int) -> None:
    made = target.stat().st_size
    if made > size:
        reason = f"this {volume.fstype} takes {made} bytes"
        raise RequestInvalid(argument="size", value=str(size), reason=reason)
