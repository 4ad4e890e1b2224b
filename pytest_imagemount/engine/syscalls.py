"""System calls that Python does not wrap, by ctypes: thin, typed, a failure is an OSError.

Sources: mount(2), umount2(2), openat2(2), prctl(2).
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
UMOUNT_NOFOLLOW = 8

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# openat2 came after the numbers were unified (Linux 5.6): 437 everywhere but on alpha and in 32-bit MIPS tables.
_SYS_OPENAT2 = 437


@cache
def libc() -> ctypes.CDLL:
    """The C library, with errno kept per call."""
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, *names: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *names[:1])
    return result


def mount(source: str, target: str, fstype: str, flags: int, data: str) -> None:
    """mount(2): the file system on block device ``source`` at folder ``target``; ``data`` is comma-separated."""
    encoded = [value.encode("utf-8", "surrogateescape") for value in (source, target, fstype, data)]
    _check(libc().mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3]), target)


def umount2(target: str, flags: int = UMOUNT_NOFOLLOW) -> None:
    """umount2(2). ``EBUSY`` means that somebody still uses the mount."""
    _check(libc().umount2(target.encode("utf-8", "surrogateescape"), flags), target)


def set_parent_death_signal(signal: int) -> None:
    """prctl(PR_SET_PDEATHSIG): the kernel sends ``signal`` to the calling process when its parent thread dies."""
    _check(libc().prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0))


def set_child_subreaper() -> None:
    """prctl(PR_SET_CHILD_SUBREAPER): descendants whose parent dies become children of the calling process."""
    _check(libc().prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0))


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(dir_fd: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """openat2(2): a descriptor, close-on-exec, of ``path`` resolved under ``dir_fd`` as ``resolve`` says."""
    if os.uname().machine == "alpha":
        raise OSError("openat2 has another number on this architecture")
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    name = os.fsencode(path)
    result = libc().syscall(
        ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(dir_fd), name, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    )
    return _check(result, os.fsdecode(name))
