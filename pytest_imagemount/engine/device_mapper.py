"""Removing a device-mapper device, as ``dmsetup remove`` does. Source: linux/dm-ioctl.h."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

_CONTROL = "/dev/mapper/control"
_DM_DEV_REMOVE = 0xC138FD04  # _IOWR(0xfd, 4, struct dm_ioctl), 312 bytes
# struct dm_ioctl: version[3], data_size, data_start, target_count, open_count, flags, event_nr, padding; dev;
# name[128], uuid[129], data[7].
_REQUEST = struct.Struct("=3I2IIiIIIQ128s129s7s")


def remove(name: str) -> None:
    """Remove the mapping ``name``; its node under ``/dev/mapper`` goes too where no udev sees to it.

    :raises OSError: EBUSY while it is open, ENXIO when there is none of that name
    """
    request = bytearray(_REQUEST.pack(4, 0, 0, _REQUEST.size, _REQUEST.size, 0, 0, 0, 0, 0, 0, name.encode(), b"", b""))
    fd = os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _DM_DEV_REMOVE, request)
    except OSError as error:
        if error.errno != errno.ENXIO:  # none of that name: what was wanted
            raise
    finally:
        os.close(fd)
    node = Path("/dev/mapper") / name
    if node.is_symlink() or node.is_block_device():
        node.unlink(missing_ok=True)
