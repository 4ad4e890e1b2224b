"""File systems whose superblock names a further block device, which the kernel would open as root when it mounts them.

That device is none of the image: it is the machine's. An ext4 with an external journal has the number of its device,
and the kernel opens it for writing in a read-only mount too; an f2fs on several devices has their paths.

Sources: the kernel's Documentation/filesystems/ext4 (super.rst) and include/linux/f2fs_fs.h.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_START = 1024  # of the superblock of both
_EXT_MAGIC, _EXT_COMPAT, _EXT_JOURNAL_INODE, _EXT_JOURNAL_DEVICE = 0x38, 0x5C, 0xE0, 0xE4
_EXT_HAS_JOURNAL = 0x4
_NO_JOURNAL = {"noload", "norecovery"}
_F2FS_MAGIC = 0xF2F52010
_F2FS_DEVICES = 2201
_F2FS_PATH = 64  # bytes
_F2FS_COPY = 4096  # from the first superblock to the second, of which the kernel takes the first that is valid
_HEAD = _START + _F2FS_COPY + _F2FS_DEVICES + _F2FS_PATH


def further_device(read: Callable[[int], bytes], fstype: str, options: Sequence[str]) -> str | None:
    """The further device that mounting a file system would open, in words; None where there is none.

    :param read: reads so many bytes from the start of the file system
    :param options: of the file system
    """
    if fstype in ("ext2", "ext3", "ext4") and not _NO_JOURNAL.intersection(options):
        return _journal_device(read(_HEAD)[_START:])
    if fstype == "f2fs":
        data = read(_HEAD)
        return _f2fs_device(data[_START:]) or _f2fs_device(data[_START + _F2FS_COPY :])
    return None


def _journal_device(superblock: bytes) -> str | None:
    is_ext = superblock[_EXT_MAGIC : _EXT_MAGIC + 2] == b"\x53\xef"
    has_journal = is_ext and _number(superblock, _EXT_COMPAT) & _EXT_HAS_JOURNAL
    number = _number(superblock, _EXT_JOURNAL_DEVICE)
    if not has_journal or _number(superblock, _EXT_JOURNAL_INODE) or not number:
        return None
    # As the kernel's new_decode_dev has it.
    return f"an external journal, block device {number >> 8 & 0xFFF}:{number & 0xFF | number >> 12 & 0xFFF00}"


def _f2fs_device(superblock: bytes) -> str | None:
    if _number(superblock, 0) != _F2FS_MAGIC:
        return None
    first = superblock[_F2FS_DEVICES : _F2FS_DEVICES + _F2FS_PATH].split(b"\0")[0]
    return f"several devices, the first of which it calls {printable(os.fsdecode(first))!r}" if first else None


def _number(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")
