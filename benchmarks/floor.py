"""The floor: the system calls that a mount of a raw image cannot do without, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from typing import TYPE_CHECKING

from pytest_imagemount.engine import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_imagemount.engine.reader import Window

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_READ_ONLY_AUTOCLEAR = 1 | 4
_FLAGS = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
# struct loop_config of linux/loop.h: fd, block size, a loop_info64, eight reserved numbers.
_CONFIG = struct.Struct("=2I 5Q4I64s64s32s2Q 64x")


def system_calls(image: Path, window: Window, fstype: str, target: Path) -> Callable[[], None]:
    """One cycle: the image opened, a loop device of ``window`` configured, mounted at ``target``, unmounted.

    The device, its flags and the mount's are those of the fixture. The type is known: no superblock is read.
    """
    name, folder = str(image), str(target)

    def cycle() -> None:
        file = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
        node, device = _attach(control, file, window)
        syscalls.mount(node, folder, fstype, _FLAGS, "")
        for descriptor in (device, control, file):
            os.close(descriptor)
        syscalls.umount2(folder)

    return cycle


def _attach(control: int, file: int, window: Window) -> tuple[str, int]:
    fields = (0, 0, 0, window.offset, window.size, 0, 0, 0, _READ_ONLY_AUTOCLEAR, b"", b"", b"", 0, 0)
    config = _CONFIG.pack(file, 0, *fields)
    while True:
        node = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
        device = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(device, _LOOP_CONFIGURE, config)
        except OSError as error:
            os.close(device)
            if error.errno != errno.EBUSY:  # taken by somebody else between the two calls
                raise
        else:
            return node, device
