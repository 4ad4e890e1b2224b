"""Capabilities of an executable file (``security.capability``) as the text that getcap prints and setcap takes.

Layout: ``struct vfs_cap_data`` of the kernel's ``uapi/linux/capability.h``; text: cap_to_text(3).
"""

from __future__ import annotations

import struct

_BY_NUMBER = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service "
    "net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct "
    "sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control "
    "setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
)
"""The capabilities of Linux 5.9 and later, from 0."""
_NAMES = tuple(f"cap_{name}" for name in _BY_NUMBER.split())

_REVISION, _EFFECTIVE = 0xFF00_0000, 0x0000_0001
_REVISION_2, _REVISION_3 = 0x0200_0000, 0x0300_0000
_DATA = struct.Struct("<5I")
_DATA_WITH_ROOT = struct.Struct("<6I")
_BITS = 64

# The states of one capability are sums of these, and cap_to_text(3) puts the greatest sum first.
_E, _P, _I = 1, 2, 4


def capabilities_text(value: bytes) -> str:
    """``cap_net_raw=ep`` and its like; ``=`` for an attribute that grants nothing.

    One that counts in a user namespace alone ends in `` [rootid=1000]``.

    :raises ValueError: ``value`` is not of revision 2 or 3, which all kernels since 2.6.25 write
    """
    permitted, inheritable, effective, root = _parse(value)
    states = [_state(permitted >> bit & 1, inheritable >> bit & 1, effective=effective) for bit in range(_BITS)]
    named = states[: len(_NAMES)]
    most = max(range(8), key=lambda state: (named.count(state), -state))
    groups = [f"={_letters(most)}"] if most else []
    for state in range(7, -1, -1):
        if state != most and state in named:
            names = ",".join(name for name, its in zip(_NAMES, named, strict=True) if its == state)
            groups.append(names + _change(most, state, first=not groups))
    for state in range(7, 0, -1):
        if state in states[len(_NAMES) :]:
            numbers = ",".join(str(bit) for bit in range(len(_NAMES), _BITS) if states[bit] == state)
            groups.append(f"{numbers}+{_letters(state)}")
    return (" ".join(groups) or "=") + (f" [rootid={root}]" if root else "")


def _parse(value: bytes) -> tuple[int, int, bool, int]:
    """Permitted and inheritable set as bit masks, whether they become effective, the namespace's root user."""
    magic = int.from_bytes(value[:4], "little")
    revision, root = magic & _REVISION, 0
    if revision == _REVISION_2 and len(value) == _DATA.size:
        _, permitted, inheritable, permitted_high, inheritable_high = _DATA.unpack(value)
    elif revision == _REVISION_3 and len(value) == _DATA_WITH_ROOT.size:
        _, permitted, inheritable, permitted_high, inheritable_high, root = _DATA_WITH_ROOT.unpack(value)
    else:
        raise ValueError(f"{value[:24].hex()} is no file capability of revision 2 or 3")
    return permitted | permitted_high << 32, inheritable | inheritable_high << 32, bool(magic & _EFFECTIVE), root


def _state(permitted: int, inheritable: int, *, effective: bool) -> int:
    state = permitted * _P + inheritable * _I
    return state + _E if state and effective else state


def _letters(state: int) -> str:
    return "".join(letter for letter, bit in (("e", _E), ("i", _I), ("p", _P)) if state & bit)


def _change(most: int, state: int, *, first: bool) -> str:
    """What turns the state of most into ``state``; for the first of all, without one of most, it is set by ``=``."""
    added, removed = _letters(state & ~most), _letters(most & ~state)
    sign = "=" if first else "+"
    return (f"{sign}{added}" if added else "") + (f"-{removed}" if removed else "")
