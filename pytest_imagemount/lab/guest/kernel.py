"""The system calls that only the lab's first process makes. Sources: finit_module(2), reboot(2)."""

from __future__ import annotations

import ctypes
import os

from pytest_imagemount.engine.syscalls import libc

_SYS_FINIT_MODULE = 313  # x86-64, the one machine for which User-Mode Linux is packaged
_MODULE_INIT_COMPRESSED_FILE = 4
_RB_POWER_OFF = 0x4321FEDC


def load_module_file(path: str, parameters: str = "") -> None:
    """finit_module(2): load the module in the file ``path`` with ``parameters`` (``name=value``, blanks between)."""
    flags = 0 if path.endswith(".ko") else _MODULE_INIT_COMPRESSED_FILE
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        result = libc().syscall(
            ctypes.c_long(_SYS_FINIT_MODULE), ctypes.c_int(fd), os.fsencode(parameters), ctypes.c_int(flags)
        )
    finally:
        os.close(fd)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def power_off() -> None:
    """reboot(2) with ``RB_POWER_OFF``: User-Mode Linux ends all its processes on the machine."""
    libc().reboot(_RB_POWER_OFF)
