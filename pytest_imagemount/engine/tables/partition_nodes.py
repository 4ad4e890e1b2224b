"""Partition nodes (``/dev/loop3p1``) made by us with the BLKPG ioctl.

The kernel's own scan needs a partition parser in the kernel, and gives no sign when it lacks one; BLKPG works on every
kernel, needs no udev and takes the windows that our own reader found. Source: linux/blkpg.h.

Unlike the scan, BLKPG refuses partitions that overlap. So a container, such as the extended partition of an MBR, whose
logical partitions lie in it, gets a node of its first 1024 bytes, as the scan gives it (block/partitions/msdos.c).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DeviceFailed

if TYPE_CHECKING:
    from ..device import Device
    from ..undo import UndoStack
    from .read import Partition, PartitionTable

_BLKPG = 0x1269
_BLKPG_ADD_PARTITION = 1
_BLKPG_DEL_PARTITION = 2
_OF_CONTAINER = 1024
"""Bytes of the node of a container, or a sector where that is more."""


class _Partition(ctypes.Structure):
    _fields_ = (
        ("start", ctypes.c_longlong),
        ("length", ctypes.c_longlong),
        ("pno", ctypes.c_int),
        ("devname", ctypes.c_char * 64),
        ("volname", ctypes.c_char * 64),
    )


class _Argument(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_int),
        ("flags", ctypes.c_int),
        ("datalen", ctypes.c_int),
        ("data", ctypes.POINTER(_Partition)),
    )


def add_nodes(device: Device, table: PartitionTable, undo: UndoStack) -> dict[int, Path]:
    """Number → node of every partition of ``table`` on ``device``, whose descriptor must still be open.

    A container in whose first bytes another partition lies has none.

    :raises DeviceFailed: the kernel refused
    """
    nodes: dict[int, Path] = {}
    present = _present(device.path)
    for partition in sorted(table.partitions, key=lambda one: one.container):
        number = partition.number
        if number not in present:  # else the kernel's own scan was faster
            length = partition.window.size
            if partition.container:
                length = min(length, max(_OF_CONTAINER, table.sector_size))
            try:
                _control(device.fd, _BLKPG_ADD_PARTITION, number, partition.window.offset, length)
            except OSError as error:
                if error.errno == errno.EBUSY and partition.container:
                    continue
                raise _refused(device, partition, error) from error
        undo.push(f"remove partition {number} of {device.path}", lambda number=number: _remove(device.path, number))  # type: ignore[misc]
        nodes[number] = Path(f"{device.path}p{number}")
    return dict(sorted(nodes.items()))


def _refused(device: Device, partition: Partition, error: OSError) -> DeviceFailed:
    why = "it overlaps another one" if error.errno == errno.EBUSY else error.strerror
    hint = "leave out partitions=True and attach the partition itself: attached_image(image, NUMBER)"
    reason = f"the kernel refused partition {partition.number}: {why}"
    return DeviceFailed(image=device.path, device=device.path, reason=reason, hint=hint, errno=error.errno)


def _remove(path: str, number: int) -> None:
    if number in _present(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _control(fd, _BLKPG_DEL_PARTITION, number, 0, 0)
        finally:
            os.close(fd)


def _present(path: str) -> set[int]:
    folder = Path("/sys/block") / Path(path).name
    return {int(entry.read_text()) for entry in folder.glob("*/partition")}


def _control(fd: int, operation: int, number: int, start: int, length: int) -> None:
    partition = _Partition(start, length, number, b"", b"")
    argument = _Argument(operation, 0, ctypes.sizeof(partition), ctypes.pointer(partition))
    fcntl.ioctl(fd, _BLKPG, bytes(argument))
