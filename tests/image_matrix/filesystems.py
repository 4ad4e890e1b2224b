"""The file systems of the matrix as bytes, each with the one file that the cells read."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from pytest_imagemount import mount_image, programs
from pytest_imagemount.factory import build_image
from tests.unit.disks import iso_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

NAME = "hello.txt"
DATA = random.Random("hello").randbytes(100_000)
"""What is in the file of that name, at the root of each file system."""
SUBVOLUME = "@data"
_MIB = 1 << 20
# The least that each mkfs makes: LUKS fills all of it with noise, which some formats then compress.
LARGE_BLOCKS = frozenset({"btrfs", "squashfs", "erofs"})
"""Those that a device with sectors of 4096 bytes can hold, however they were made."""
_SIZES: dict[str, tuple[int, Sequence[str]]] = {
    "ext2": (4 * _MIB, ()),
    "ext4": (6 * _MIB, ()),
    # The factory makes 300 MiB, less than which mkfs.xfs refuses; what it does not use of those is cut off.
    "xfs": (16 * _MIB, ("--unsupported", "-d", "size=16m", "-l", "size=6m")),
    "btrfs": (16 * _MIB, ("--mixed",)),
    "vfat": (4 * _MIB, ()),
    "squashfs": (_MIB, ()),
    "erofs": (_MIB, ()),
    "iso9660": (_MIB, ()),
}


def make_filesystem(kind: str, sector_size: int, folder: Path, *, subvolume: bool = False) -> bytes:
    """An image of that file system; a whole number of MiB.

    :param subvolume: have the file in a subvolume, and not at the root
    """
    size, options = _SIZES[kind]
    if kind == "iso9660":
        return iso_image(f"{NAME.upper()};1", DATA).ljust(size, b"\0")
    content = {} if subvolume else {NAME: DATA}
    path = build_image(
        folder / kind,
        fstype=kind,
        content=content,
        size=None if kind == "xfs" else size,
        sector_size=sector_size,
        mkfs_options=options,
    )
    if subvolume:
        with mount_image(path, mode="rw") as image:
            programs.run(["btrfs", "subvolume", "create", str(image.root / SUBVOLUME)])
            (image.root / SUBVOLUME / NAME).write_bytes(DATA)
    with path.open("rb") as file:
        data = file.read(size)
    path.unlink()
    return data
