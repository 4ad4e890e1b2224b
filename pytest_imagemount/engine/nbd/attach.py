"""Kernel NBD devices: an export of the storage daemon as ``/dev/nbdN``, by netlink, or by ioctl where that is not."""

from __future__ import annotations

import errno
import itertools
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...errors import CapabilityMissing, DeviceFailed, DevicesBusy
from ..undo import wait_until
from . import ioctl_device as nbd_ioctl
from .client import open_export
from .device import GONE_TIMEOUT, ByNetlink, NbdDevice
from .netlink import NbdNetlink
from .order import Order, refused_by_kernel, still_there
from .pool import BACKEND_PREFIX, Busy, Holder, Lease
from .state import SYS, NbdState, kernel_state, module_loaded

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from .ioctl_device import IoctlDevice
    from .pool import NbdPool

__all__ = [
    "NbdDevice",
    "NbdState",
    "attach",
    "disconnect",
    "disconnect_now",
    "kernel_state",
    "lease_device",
    "module_loaded",
]

_serials = itertools.count(1)


def lease_device(pool: NbdPool, holder: Holder, *, skip: Collection[int] = ()) -> Lease:
    """A lease, taken before the image is opened: who has to ask again and again should not cost that each time.

    :raises DevicesBusy: no device is free now
    """
    lease = pool.try_lease(holder, skip=skip)
    if isinstance(lease, Busy):
        raise DevicesBusy(image=holder.image, holders=lease.holders, ahead=lease.ahead)
    return lease


def attach(
    server: Path,
    export: str,
    *,
    pool: NbdPool,
    holder: Holder,
    lease: Lease | None = None,
    tag: str = "",
    block_size: int = 512,
    timeout: int = 60,
) -> NbdDevice | IoctlDevice:
    """Connect a leased device to ``export`` of the NBD server at the unix socket ``server``.

    :param holder: who it is for; ``holder.image`` is the image's name, for messages
    :param lease: taken over, also on failure; None takes one from ``pool``, and so does a device of which the kernel
        says that another program has it
    :param tag: what the connection's identifier says after ``pytest-imagemount:``, by which it is reclaimed; by default
        the process id and a number
    :param block_size: logical block size of the device in bytes
    :param timeout: seconds after which a request that the server does not answer fails with EIO
    :raises DevicesBusy: no device is free now
    :raises CapabilityMissing: the kernel has no NBD, or not for us
    :raises DeviceFailed: the server or the kernel refused
    """
    backend = BACKEND_PREFIX + (tag or f"{os.getpid()}:{next(_serials)}")
    lease = lease or lease_device(pool, holder)
    refused: set[int] = set()
    try:
        with _connector() as connector:
            connection, facts = open_export(server, export)
            block_size = max(block_size, facts.minimum_block)
            with connection:  # the kernel keeps a reference of its own
                while True:
                    order = Order(lease, connection, facts, block_size, timeout, backend, holder.image)
                    if (device := connector.connect(order)) is not None:
                        return device
                    lease.release()
                    refused.add(lease.index)
                    lease = lease_device(pool, holder, skip=refused)
    except BaseException:
        lease.release()
        raise


def disconnect(index: int) -> None:
    """Disconnect ``/dev/nbd<index>``, whoever connected it, and see it gone from the kernel's view.

    :raises CapabilityMissing: the kernel takes no NBD commands from here
    :raises DeviceFailed: it did not go within 2 s
    """
    path = f"/dev/nbd{index}"
    with _connector() as connector:
        try:
            connector.disconnect(index)
        except OSError as error:
            raise refused_by_kernel(path, path, error) from error
    if not wait_until(lambda: kernel_state(index).idle, GONE_TIMEOUT):
        raise still_there(path, path, GONE_TIMEOUT)


def disconnect_now(index: int) -> None:
    """Disconnect ``/dev/nbd<index>`` and wait for nothing.

    :raises OSError: the kernel refused
    """
    with _connector() as connector:
        connector.disconnect(index)


class _ByIoctl:
    """In a network namespace of its own (a container) the kernel shows no netlink family: see :mod:`.nbd_ioctl`."""

    def connect(self, order: Order) -> IoctlDevice | None:
        """The device; None: another program has it, or there is none of that number."""
        try:
            return nbd_ioctl.connect(
                order.lease,
                order.connection,
                order.facts,
                block_size=order.block_size,
                timeout=order.timeout,
                image=order.image,
            )
        except OSError as error:
            if isinstance(error, DeviceFailed):
                raise
            if error.errno in (errno.EBUSY, errno.ENOENT):  # ENOENT: only netlink makes devices that are not there
                return None
            raise refused_by_kernel(order.image, order.path, error) from error

    def disconnect(self, index: int) -> None:
        """Disconnect it, whoever connected it."""
        nbd_ioctl.disconnect(index)


@contextmanager
def _connector() -> Iterator[ByNetlink | _ByIoctl]:
    driver = NbdNetlink.open()
    if driver is not None:
        with driver:
            yield ByNetlink(driver)
    elif module_loaded(SYS):
        yield _ByIoctl()
    else:
        reason = "the kernel module nbd is not loaded"
        hint = "run `modprobe nbd max_part=0`, use backend='fuse', or run the tests in `imagemount lab`"
        raise CapabilityMissing(capability="nbd", reason=reason, hint=hint)
