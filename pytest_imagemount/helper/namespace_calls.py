"""System calls for a private view of the machine, by ctypes: thin, typed, a failure is an OSError.

Sources: unshare(2), setns(2), pivot_root(2), open_tree(2), move_mount(2), mount_setattr(2), prctl(2), capset(2),
keyctl(2). Linux 5.12 has all of them.
"""

from __future__ import annotations

import ctypes
import os

from ..engine.syscalls import libc

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_REC = 0x4000
MS_SLAVE = 0x80000
MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_IDMAP = 0x00100000

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LINUX_CAPABILITY_VERSION_3 = 0x20080522
_KEYCTL_JOIN_SESSION_KEYRING = 1
# The numbers were unified in Linux 5.0, but on alpha and in the tables of MIPS.
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
# keyctl is older than that, and the C library does not wrap it.
_SYS_KEYCTL = {
    "x86_64": 250,
    "aarch64": 219,
    "riscv64": 219,
    "loongarch64": 219,
    "i686": 288,
    "armv7l": 311,
    "ppc64le": 271,
    "s390x": 280,
}


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def unshare(flags: int) -> None:
    """unshare(2)."""
    _check(libc().unshare(ctypes.c_int(flags)))


def setns(descriptor: int, kind: int) -> None:
    """setns(2): enter the namespace open at ``descriptor``, which is a ``CLONE_NEW…``."""
    _check(libc().setns(ctypes.c_int(descriptor), ctypes.c_int(kind)))


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2)."""
    _check(libc().pivot_root(os.fsencode(new), os.fsencode(old)))


def set_hostname(name: str) -> None:
    """sethostname(2), of this UTS namespace."""
    _check(libc().sethostname(name.encode(), ctypes.c_size_t(len(name.encode()))))


def clone_mount(folder: int) -> int:
    """open_tree(2): a descriptor of a new mount, attached nowhere, of what the folder open at ``folder`` shows."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH
    return _check(libc().syscall(ctypes.c_long(_SYS_OPEN_TREE), ctypes.c_int(folder), b"", ctypes.c_uint(flags)))


class _MountAttributes(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def set_mount_attributes(mount: int, attributes: int, user_namespace: int = 0) -> None:
    """mount_setattr(2): set ``attributes`` on the mount open at ``mount``.

    :param user_namespace: a descriptor; with ``MOUNT_ATTR_IDMAP`` the mount shows owners as its mapping says
    """
    values = _MountAttributes(attributes, 0, 0, user_namespace)
    _check(
        libc().syscall(
            ctypes.c_long(_SYS_MOUNT_SETATTR),
            ctypes.c_int(mount),
            b"",
            ctypes.c_uint(_AT_EMPTY_PATH),
            ctypes.byref(values),
            ctypes.c_size_t(ctypes.sizeof(values)),
        )
    )


def attach_mount(mount: int, folder: str) -> None:
    """move_mount(2): attach the mount open at ``mount`` at ``folder``."""
    _check(
        libc().syscall(
            ctypes.c_long(_SYS_MOVE_MOUNT),
            ctypes.c_int(mount),
            b"",
            ctypes.c_int(_AT_FDCWD),
            os.fsencode(folder),
            ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
        )
    )


def set_undumpable() -> None:
    """prctl(PR_SET_DUMPABLE): nobody without CAP_SYS_PTRACE may follow ``/proc/PID/exe``, ``root`` or ``fd/N``."""
    _check(libc().prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0), 0, 0, 0))


def set_no_new_privileges() -> None:
    """prctl(PR_SET_NO_NEW_PRIVS): no program gives more rights, by setuid bits or file capabilities."""
    _check(libc().prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0))


def empty_bounding_set() -> None:
    """prctl(PR_CAPBSET_DROP) of every capability that this kernel has: none can be gained any more, by root either."""
    for number in range(64):
        if libc().prctl(_PR_CAPBSET_DROP, ctypes.c_ulong(number), 0, 0, 0) < 0:
            if number == 0:
                _check(-1)
            return  # EINVAL: past the last one


def drop_capabilities() -> None:
    """capset(2) of nothing, and no ambient ones."""
    _check(libc().prctl(_PR_CAP_AMBIENT, ctypes.c_ulong(_PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0))
    header = (ctypes.c_uint32 * 2)(_LINUX_CAPABILITY_VERSION_3, 0)
    _check(libc().capset(header, (ctypes.c_uint32 * 6)()))


def join_new_session_keyring() -> None:
    """keyctl(2): leave the keys of the session behind. Nothing where the kernel has no keyrings."""
    number = _SYS_KEYCTL.get(os.uname().machine)
    if number is not None:
        libc().syscall(ctypes.c_long(number), ctypes.c_int(_KEYCTL_JOIN_SESSION_KEYRING), None)
