"""Partition nodes (``/dev/loop3p1``) made by us with the BLKPG ioctl.

The kernel's own scan needs a partition parser in the kernel, and gives no sign when it lacks one; BLKPG works on every
kernel, needs no udev and takes the windows that our own reader found. Source: linux/blkpg.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import DeviceFailed

if TYPE_CHECKING:
    from ..device import Device
    from ..undo import UndoStack
    from .read import PartitionTable

_BLKPG = 0x1269
_BLKPG_ADD_PARTITION = 1
_BLKPG_DEL_PARTITION = 2


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

    :raises DeviceFailed: the kernel refused
    """
    nodes: dict[int, Path] = {}
    present = _present(device.path)
    for partition in table.partitions:
        number = partition.number
        if number not in present:  # else the kernel's own scan was faster
            try:
                _control(device.fd, _BLKPG_ADD_PARTITION, number, partition.window.offset, partition.window.size)
            except OSError as error:
                hint = "leave out partitions=True and attach the partition itself: attached_image(image, NUMBER)"
                reason = f"the kernel refused partition {number}: {error.strerror}"
                raise DeviceFailed(
                    image=device.path, device=device.path, reason=reason, hint=hint, errno=error.errno
                ) from error
        undo.push(f"remove partition {number} of {device.path}", lambda number=number: _remove(device.path, number))  # type: ignore[misc]
        nodes[number] = Path(f"{device.path}p{number}")
    return nodes


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
