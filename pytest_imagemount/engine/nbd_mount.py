"""Mount through a kernel NBD device that is connected to an export of the storage daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .mount import Mount
from .nbd import attach as nbd
from .nbd.client import NbdReader, open_export
from .nbd.pool import Holder
from .qemu.daemon import open_disk

if TYPE_CHECKING:
    from .nbd.ioctl_device import IoctlDevice
    from .nbd.pool import Lease
    from .reader import Reader, Window
    from .undo import UndoStack


class NbdMount(Mount):
    """any format → NBD export of the partition's window → ``/dev/nbdN``, leased from the pool.

    The partition table is read over the NBD protocol from an export of the whole disk, with no device; only then is the
    window exported and connected, so that the device *is* the partition.
    """

    backend = "nbd"
    _lease: Lease | None = None

    @property
    def _holder(self) -> Holder:
        return Holder(self.owner.pid, self.owner.worker, self.owner.test, self.image.name, tag=self.tag)

    def _attach(self, undo: UndoStack) -> Reader:
        lease = self._lease = nbd.lease_device(self.workspace.pool, self._holder)
        undo.push("give back the NBD device", lease.release)
        daemon = self.workspace.daemon
        self._node = open_disk(daemon, self.image, self.wanted.mode, self.workspace.make_scratch_file, undo)
        export = daemon.export_nbd(self._node, writable=False)
        undo.push(f"remove the NBD export {export}", lambda: daemon.remove_export(export))
        reader = NbdReader(*open_export(daemon.nbd_socket, export))
        undo.push(f"close the connection to {export}", reader.close)
        return reader

    def _map(self, undo: UndoStack, window: Window) -> nbd.NbdDevice | IoctlDevice:
        daemon, node = self.workspace.daemon, self._node
        if self.partition is not None:
            node = daemon.add_window(node, window)
            undo.push(f"close the window {node}", lambda: daemon.remove_node(node))
        export = daemon.export_nbd(node, writable=not self._readonly)
        undo.push(f"remove the NBD export {export}", lambda: daemon.remove_export(export))
        lease, self._lease = self._lease, None  # the device's from here on: it gives the lease back with itself
        device = nbd.attach(
            daemon.nbd_socket,
            export,
            pool=self.workspace.pool,
            holder=self._holder,
            lease=lease,
            tag=self.tag,
            block_size=self.table.sector_size if self.table and self.wanted.partition_nodes else 512,
        )
        undo.push(f"detach {device.path}", device.detach)
        return device
