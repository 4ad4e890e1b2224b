"""What is to be connected to an NBD device, and how the kernel's refusals read."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import CapabilityMissing, DeviceFailed
from ..privilege import missing_privilege

if TYPE_CHECKING:
    import socket

    from .client import Export
    from .pool import Lease


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be connected: to which device, from where, how, and for whom."""

    lease: Lease
    connection: socket.socket
    facts: Export
    block_size: int
    timeout: int
    backend: str
    image: str

    @property
    def path(self) -> str:
        """``/dev/nbdN``."""
        return f"/dev/nbd{self.lease.index}"


def still_there(image: str, path: str, waited: float) -> DeviceFailed:
    """The error for a device that did not go within ``waited`` seconds."""
    reason = f"the device is still connected after {waited:.0f} s"
    hint = f"a program has it open, or it is mounted in another mount namespace: see fuser -vm {path}"
    return DeviceFailed(image=image, device=path, reason=reason, hint=hint, errno=errno.EBUSY)


def refused_by_kernel(image: str, path: str, error: OSError) -> DeviceFailed | CapabilityMissing:
    """The error for what the kernel answered."""
    if missing := missing_privilege(error):
        return missing
    hints = {
        errno.EPERM: "run as root, or allow `sudo -n`; in a container, add CAP_SYS_ADMIN",
        errno.EACCES: "run as root, or allow `sudo -n`; in a container, allow block devices of major 43",
        errno.ENOENT: "in a container, show the host's /dev/nbd* to it",
        errno.EINVAL: "see the kernel log (dmesg); raise nbds_max, or lower --imagemount-nbd-devices",
    }
    hint = hints.get(error.errno or 0, "`imagemount doctor` says what this machine can do")
    reason = f"the kernel refused: {error.strerror or error}"
    return DeviceFailed(image=image, device=path, reason=reason, hint=hint, errno=error.errno)
