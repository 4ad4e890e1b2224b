"""Where on a volume a prober must be able to read to tell what it is."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .reader import Window

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .reader import Reader

_EDGE = 1 << 20
_DIRECTORY = 64 << 10


def metadata_windows(reader: Reader, window: Window) -> Iterator[Window]:
    """Places, in bytes from the start of ``window`` and inside it.

    The first and the last MiB hold nearly every superblock. FAT32, exFAT and NTFS point further in: the label of the
    former two is in the root folder, and libblkid takes no NTFS for one whose file table it cannot read.
    """
    yield Window(0, min(_EDGE, window.size))
    tail = max(_EDGE, window.size - _EDGE)
    if tail < window.size:
        yield Window(tail, window.size - tail)
    pointed_at = _pointed_at(reader.pread(512, window.offset))
    if pointed_at is not None and _EDGE - _DIRECTORY < pointed_at < min(tail, window.size):
        yield Window(pointed_at, min(_DIRECTORY, window.size - pointed_at))


def _pointed_at(sector: bytes) -> int | None:
    """Offset of the root folder or file table that a boot sector points at.

    Sources: Microsoft, "FAT: General Overview of On-Disk Format", "exFAT file system specification"; libblkid's ntfs.c.
    """
    if len(sector) < 512 or sector[510:] != b"\x55\xaa":
        return None
    bytes_per_sector, per_cluster, reserved, fats = struct.unpack_from("<HBHB", sector, 11)
    if sector[3:11] == b"EXFAT   ":
        heap, _, root = struct.unpack_from("<III", sector, 88)
        sector_bits, cluster_bits = min(sector[108], 12), min(sector[109], 25)
        return int((heap + (max(root, 2) - 2 << cluster_bits)) << sector_bits)
    if sector[3:11] == b"NTFS    ":
        # From 2^8 on the byte is a negative exponent: clusters of more than 64 KiB.
        sectors = per_cluster if per_cluster < 0x80 else 1 << min(256 - per_cluster, 16)
        return int(struct.unpack_from("<Q", sector, 48)[0] * sectors * bytes_per_sector)
    if sector[82:87] == b"FAT32":
        fat_sectors, root = struct.unpack_from("<I4xI", sector, 36)
        return int((reserved + fats * fat_sectors + (max(root, 2) - 2) * per_cluster) * bytes_per_sector)
    return None
