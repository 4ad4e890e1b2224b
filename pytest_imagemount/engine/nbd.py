"""Kernel NBD devices: an export of the storage daemon as ``/dev/nbdN``, by netlink.

Sources: linux/nbd-netlink.h, drivers/block/nbd.c.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
from typing import TYPE_CHECKING

from ..errors import CapabilityMissing, DeviceFailed, DevicesBusy
from .nbd_client import open_export
from .nbd_state import SYS, NbdState, kernel_state, module_loaded
from .netlink import DISCONNECT_ON_CLOSE, NbdNetlink
from .pool import BACKEND_PREFIX, Busy, Holder, Lease
from .undo import wait_until

if TYPE_CHECKING:
    import socket
    from collections.abc import Collection
    from pathlib import Path

    from .pool import NbdPool

__all__ = ["NbdDevice", "NbdState", "attach", "disconnect", "kernel_state", "lease_device", "module_loaded"]

_BLKFLSBUF = 0x1261
_GONE_TIMEOUT = 2.0
_serials = itertools.count(1)


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
                with _driver() as driver:
                    driver.disconnect(self.index)
            if not wait_until(lambda: not self._connected(), _GONE_TIMEOUT):
                raise _still_there(self.image, self.path)
        except OSError as error:
            if isinstance(error, DeviceFailed):
                raise
            raise _refused(self.image, self.path, error) from error
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


def lease_device(pool: NbdPool, holder: Holder, *, skip: Collection[int] = ()) -> Lease:
    """A lease, taken before the image is opened: who has to ask again and again should not cost that each time.

    :raises DevicesBusy: no device is free now
    """
    lease = pool.try_lease(holder, skip=skip)
    if isinstance(lease, Busy):
        raise DevicesBusy(image=holder.image, holders=lease.holders)
    return lease


def attach(
    server: Path,
    export: str,
    *,
    pool: NbdPool,
    holder: Holder,
    lease: Lease | None = None,
    block_size: int = 512,
    timeout: int = 60,
) -> NbdDevice:
    """Connect a leased device to ``export`` of the NBD server at the unix socket ``server``.

    :param holder: who it is for; ``holder.image`` is the image's name, for messages
    :param lease: taken over, also on failure; None takes one from ``pool``, and so does a device of which the kernel
        says that another program has it
    :param block_size: logical block size of the device in bytes
    :param timeout: seconds after which a request that the server does not answer fails with EIO
    :raises DevicesBusy: no device is free now
    :raises CapabilityMissing: the kernel has no NBD, or not for us
    :raises DeviceFailed: the server or the kernel refused
    """
    backend = f"{BACKEND_PREFIX}{os.getpid()}:{next(_serials)}"
    lease = lease or lease_device(pool, holder)
    refused: set[int] = set()
    try:
        with _driver() as driver:
            connection, facts = open_export(server, export)
            settings = {
                "size": facts.size,
                "block_size": max(block_size, facts.minimum_block),
                "server_flags": facts.flags,
                "timeout": timeout,
            }
            with connection:  # the kernel keeps a reference of its own
                while not _connect(driver, lease.index, connection, settings, backend, holder.image):
                    lease.release()
                    refused.add(lease.index)
                    lease = lease_device(pool, holder, skip=refused)
            return _hold(driver, lease, readonly=facts.readonly, backend=backend, image=holder.image)
    except BaseException:
        lease.release()
        raise


def disconnect(index: int) -> None:
    """Disconnect ``/dev/nbd<index>``, whoever connected it, and see it gone from the kernel's view.

    :raises CapabilityMissing: the kernel takes no NBD commands from here
    :raises DeviceFailed: it did not go within 2 s
    """
    path = f"/dev/nbd{index}"
    with _driver() as driver:
        try:
            driver.disconnect(index)
        except OSError as error:
            raise _refused(path, path, error) from error
    if not wait_until(lambda: kernel_state(index).idle, _GONE_TIMEOUT):
        raise _still_there(path, path)


def _connect(
    driver: NbdNetlink, index: int, connection: socket.socket, settings: dict[str, int], backend: str, image: str
) -> bool:
    """Whether the device is ours now; False: another program has just taken it, or has it open."""
    try:
        driver.connect(index, connection=connection, backend=backend, **settings)
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise _refused(image, f"/dev/nbd{index}", error) from error
    return True


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
            raise _refused(image, path, error) from error
        raise


def _driver() -> NbdNetlink:
    driver = NbdNetlink.open()
    if driver is not None:
        return driver
    if module_loaded(SYS):
        reason = "the kernel offers its netlink family nbd in the first network namespace only"
        hint = "start the container with the host's network, or use backend='fuse'"
    else:
        reason = "the kernel module nbd is not loaded"
        hint = "run `modprobe nbd max_part=0`, use backend='fuse', or run the tests in `imagemount lab`"
    raise CapabilityMissing(capability="nbd", reason=reason, hint=hint)


def _still_there(image: str, path: str) -> DeviceFailed:
    reason = f"the device is still connected after {_GONE_TIMEOUT:.0f} s"
    hint = f"a program has it open, or it is mounted in another mount namespace: see fuser -vm {path}"
    return DeviceFailed(image=image, device=path, reason=reason, hint=hint, errno=errno.EBUSY)


def _refused(image: str, path: str, error: OSError) -> DeviceFailed:
    hints = {
        errno.EPERM: "run as root, or allow `sudo -n`; in a container, add CAP_SYS_ADMIN",
        errno.EACCES: "run as root, or allow `sudo -n`; in a container, allow block devices of major 43",
        errno.ENOENT: "in a container, show the host's /dev/nbd* to it",
        errno.EINVAL: "see the kernel log (dmesg); raise nbds_max, or lower --imagemount-nbd-devices",
    }
    hint = hints.get(error.errno or 0, "`imagemount doctor` says what this machine can do")
    reason = f"the kernel refused: {error.strerror or error}"
    return DeviceFailed(image=image, device=path, reason=reason, hint=hint, errno=error.errno)
