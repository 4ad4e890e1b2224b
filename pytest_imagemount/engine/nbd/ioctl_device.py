"""Connecting an NBD device by ioctl, for where the kernel's netlink family nbd is not.

It is offered in the first network namespace only, and containers have their own.

``NBD_DO_IT`` serves the device until it is disconnected, and blocks: a thread of this process does that. The kernel
ends it with the process, however that ends, and the device with it. It is what ``qemu-nbd --connect`` does in a process
of its own, without the process. Source: linux/nbd.h, drivers/block/nbd.c.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from ...errors import DeviceFailed
from ..undo import wait_until
from .state import kernel_state

if TYPE_CHECKING:
    import socket

    from .client import Export
    from .pool import Lease

_SET_SOCK = 0xAB00
_SET_BLKSIZE = 0xAB01
_DO_IT = 0xAB03
_CLEAR_SOCK = 0xAB04
_SET_SIZE_BLOCKS = 0xAB07
_DISCONNECT = 0xAB08
_SET_TIMEOUT = 0xAB09
_SET_FLAGS = 0xAB0A
_TIMEOUT = 5.0  # seconds to come, or to go


class IoctlDevice:
    """A connected device, until :meth:`detach` or the end of this process: no unmount ends it, as by netlink."""

    def __init__(self, lease: Lease, descriptor: int, server: threading.Thread, *, image: str) -> None:
        self.fd = descriptor
        self.index = lease.index
        self._image, self._lease, self._server = image, lease, server

    @property
    def path(self) -> str:
        """``/dev/nbdN``."""
        return f"/dev/nbd{self.index}"

    @property
    def node(self) -> str:
        """The same: it is in ``/dev``."""
        return self.path

    @property
    def attached(self) -> bool:
        """Whether the kernel has it connected by us still."""
        return self.fd >= 0 and self._server.is_alive()

    def arm(self) -> None:
        """Nothing: the thread that serves the device has to keep it open."""

    def detach(self) -> None:
        """Write out what is cached, disconnect, see it gone from the kernel's view. Twice is fine.

        :raises DeviceFailed: it is still mounted, or did not go
        """
        if self.fd < 0:
            return
        try:
            # O_EXCL fails while it is mounted or mapped: never pull that away.
            os.close(os.open(self.path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
            os.fsync(self.fd)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise self._failed("it is still mounted, or in use by the device mapper") from None
        fcntl.ioctl(self.fd, _DISCONNECT)
        self._server.join(_TIMEOUT)
        if self._server.is_alive():
            raise self._failed(f"it is still connected after {_TIMEOUT:.0f} s")
        descriptor, self.fd = self.fd, -1
        os.close(descriptor)
        wait_until(lambda: kernel_state(self.index).idle, _TIMEOUT)
        self._lease.release()

    def _failed(self, reason: str) -> DeviceFailed:
        hint = f"see fuser -vm {self.path}"
        return DeviceFailed(image=self._image, device=self.path, reason=reason, hint=hint, errno=errno.EBUSY)


def connect(
    lease: Lease, connection: socket.socket, facts: Export, *, block_size: int, timeout: int, image: str
) -> IoctlDevice:
    """Connect the leased device to the export at the other end of ``connection``, which may be closed afterwards.

    :raises OSError: EBUSY where another program has it
    :raises DeviceFailed: it did not come up
    """
    path = f"/dev/nbd{lease.index}"
    descriptor = os.open(path, (os.O_RDONLY if facts.readonly else os.O_RDWR) | os.O_CLOEXEC)
    try:
        # The socket first: it is what fails when the device is somebody else's.
        fcntl.ioctl(descriptor, _SET_SOCK, connection.fileno())
        fcntl.ioctl(descriptor, _SET_BLKSIZE, block_size)
        fcntl.ioctl(descriptor, _SET_SIZE_BLOCKS, facts.size // block_size)
        fcntl.ioctl(descriptor, _SET_TIMEOUT, timeout)
        fcntl.ioctl(descriptor, _SET_FLAGS, facts.flags)
        server = threading.Thread(target=_serve, args=(descriptor,), name=f"nbd{lease.index}", daemon=True)
        server.start()
        if not wait_until(lambda: kernel_state(lease.index).pid is not None or not server.is_alive(), _TIMEOUT):
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    except BaseException:
        os.close(descriptor)
        raise
    device = IoctlDevice(lease, descriptor, server, image=image)
    if not server.is_alive():
        os.close(descriptor)
        hint = "see the kernel log (dmesg)"
        raise DeviceFailed(image=image, device=path, reason="the kernel ended the connection at once", hint=hint)
    return device


def disconnect(index: int) -> None:
    """Disconnect ``/dev/nbd<index>``, whoever connected it.

    :raises OSError: the device cannot be opened
    """
    descriptor = os.open(f"/dev/nbd{index}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _DISCONNECT)
    except OSError as error:
        if error.errno != errno.EINVAL:  # nothing is connected: what was wanted
            raise
    finally:
        os.close(descriptor)


def _serve(descriptor: int) -> None:
    # EBADR, ETIMEDOUT, ESHUTDOWN: how NBD_DO_IT says that it was disconnected, or that the server is gone.
    with suppress(OSError):
        fcntl.ioctl(descriptor, _DO_IT)
    with suppress(OSError):
        fcntl.ioctl(descriptor, _CLEAR_SOCK)
