"""An NBD device connected by netlink, which the kernel lets go at its last close.

Sources: linux/nbd-netlink.h, drivers/block/nbd.c.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from ...errors import DeviceFailed
from ..undo import wait_until
from .netlink import DISCONNECT_ON_CLOSE, NbdNetlink
from .order import Order, refused_by_kernel, still_there
from .state import NbdState, kernel_state

if TYPE_CHECKING:
    from .pool import Lease

_BLKFLSBUF = 0x1261
GONE_TIMEOUT = 2.0
"""Seconds that a disconnected device may take to be gone."""


class NbdDevice:
    """A connected device, held open by ``fd`` until :meth:`arm` or :meth:`detach`; it keeps its lease until then."""

    def __init__(self, lease: Lease, fd: int, *, image: str, backend: str, state: NbdState) -> None:
        self.index = lease.index
        self.fd = fd
        self.image = image
        self._lease, self._backend, self._pid = lease, backend, state.pid

    @property
    def path(self) -> str:
        """``/dev/nbdN``."""
        return f"/dev/nbd{self.index}"

    @property
    def node(self) -> str:
        """The device for system calls of this process."""
        return self.path

    @property
    def attached(self) -> bool:
        """Whether the kernel still has our connection."""
        return self._connected()

    def arm(self) -> None:
        """Let go of the device: from here on the kernel disconnects it at the last unmount."""
        if self.fd >= 0:
            descriptor, self.fd = self.fd, -1
            os.close(descriptor)

    def detach(self) -> None:
        """Flush it, disconnect it, see it gone from the kernel's view, and give back the lease. Twice is fine.

        :raises DeviceFailed: it is mounted or claimed still, or did not go within 2 s
        """
        try:
            if self._connected():
                self._flush()
            self.arm()
            if self._connected():
                driver = NbdNetlink.open()
                if driver is None:
                    raise still_there(self.image, self.path, GONE_TIMEOUT)
                with driver:
                    driver.disconnect(self.index)
            if not wait_until(lambda: not self._connected(), GONE_TIMEOUT):
                raise still_there(self.image, self.path, GONE_TIMEOUT)
        except OSError as error:
            if isinstance(error, DeviceFailed):
                raise
            raise refused_by_kernel(self.image, self.path, error) from error
        self._lease.release()

    def _connected(self) -> bool:
        # The device may have gone to another program since the kernel disconnected it: it must still be our connection.
        state = kernel_state(self.index)
        if state.backend:
            return state.backend == self._backend
        return state.pid is not None and state.pid == self._pid

    def _flush(self) -> None:
        """Write out what the kernel has cached of it. O_EXCL fails while it is mounted or mapped: never pull that."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            if not self._connected():
                return
            hint = f"unmount what is mounted from it first: see grep {self.path} /proc/*/mountinfo"
            reason = "it is still mounted, or in use by the device mapper"
            raise DeviceFailed(
                image=self.image, device=self.path, reason=reason, hint=hint, errno=errno.EBUSY
            ) from None
        try:
            os.fsync(descriptor)
            fcntl.ioctl(descriptor, _BLKFLSBUF)
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the server is dead, there is nobody to write to
                raise
        finally:
            os.close(descriptor)


class ByNetlink:
    """The usual way to connect."""

    def __init__(self, driver: NbdNetlink) -> None:
        self._driver = driver

    def disconnect(self, index: int) -> None:
        """Disconnect it, whoever connected it."""
        self._driver.disconnect(index)

    def connect(self, order: Order) -> NbdDevice | None:
        """The device; None: another program has just taken it, or has it open."""
        index = order.lease.index
        try:
            self._driver.connect(
                index,
                connection=order.connection,
                backend=order.backend,
                size=order.facts.size,
                block_size=order.block_size,
                server_flags=order.facts.flags,
                timeout=order.timeout,
            )
        except OSError as error:
            if error.errno == errno.EBUSY:
                return None
            raise refused_by_kernel(order.image, order.path, error) from error
        return _hold(self._driver, order.lease, readonly=order.facts.readonly, backend=order.backend, image=order.image)


def _hold(driver: NbdNetlink, lease: Lease, *, readonly: bool, backend: str, image: str) -> NbdDevice:
    """Open the connected device, and have it disconnected at its last close; a failure disconnects it at once.

    DISCONNECT_ON_CLOSE at CONNECT would fire early: udev opens and closes every new device. Opening the device before
    CONNECT is no way out, CONNECT answers EBUSY then. So: connect, hold it open, set the flag.
    """
    path = f"/dev/nbd{lease.index}"
    descriptor = -1
    try:
        descriptor = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
        driver.reconfigure(lease.index, client_flags=DISCONNECT_ON_CLOSE, backend=backend)
        return NbdDevice(lease, descriptor, image=image, backend=backend, state=kernel_state(lease.index))
    except BaseException as error:
        if descriptor >= 0:
            os.close(descriptor)
        driver.disconnect(lease.index)
        if isinstance(error, OSError):
            raise refused_by_kernel(image, path, error) from error
        raise
