"""Mount through a kernel NBD device that is connected to an export of the storage daemon."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .mount import Mount
from .nbd import attach as nbd
from .nbd.client import NbdReader, open_export
from .nbd.pool import Holder
from .qemu.layers import open_disk
from .reader import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from .nbd.ioctl_device import IoctlDevice
    from .nbd.pool import Lease
    from .reader import Reader
    from .undo import UndoStack


class NbdMount(Mount):
    """any format → NBD export of the partition's window → ``/dev/nbdN``, leased from the pool.

    The partition table is read over the NBD protocol from an export of the whole disk, with no device; only then is the
    window exported and connected, so that the device *is* the partition. Of an image that was mounted before and has
    not changed the table is known: then only the window is opened.
    """

    backend = "nbd"
    _lease: Lease | None = None
    _node: str | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._devices: list[nbd.NbdDevice | IoctlDevice] = []

    @property
    def _holder(self) -> Holder:
        return Holder(self.owner.pid, self.owner.worker, self.owner.test, self.image.name, tag=self.tag)

    def _attach(self, undo: UndoStack) -> Reader:
        _ = self.workspace.daemon  # the first use starts it: not while others wait for the device
        lease = self._lease = nbd.lease_device(self.workspace.pool, self._holder)
        undo.push("give back the NBD device", lease.release)
        size = self._known_size()
        return self._open_disk(undo) if size is None else _LaterReader(size, lambda: self._open_disk(undo))

    def _share(self, base: Mount) -> None:
        super()._share(base)
        assert isinstance(base, NbdMount)
        self._node = base._node

    def cut_off(self) -> None:
        """See :meth:`.Mount.cut_off`: what the daemon has not answered would wait for its timeout, a minute."""
        for device in self._devices:
            if device.attached:
                with suppress(OSError):
                    nbd.disconnect_now(device.index)

    def _known_size(self) -> int | None:
        """Bytes of the disk, where nothing has to be read of it to find the window and to open it alone."""
        if not self._readonly or self.image.layers or not (self._found.knows_table or self.wanted.whole):
            return None
        return self.workspace.daemon.size_when_opened_before(self.image.fd, self.image.format)

    def _open_disk(self, undo: UndoStack) -> NbdReader:
        daemon = self.workspace.daemon
        wanted = self.wanted
        self._node = open_disk(
            daemon,
            self.image,
            wanted.mode,
            self.workspace.make_scratch_file,
            undo,
            overlay_size=wanted.overlay_size,
        )
        export = daemon.export_nbd(self._node, writable=False)
        undo.push(f"remove the NBD export {export}", lambda: daemon.remove_export(export))
        reader = NbdReader(*open_export(daemon.nbd_socket, export))
        undo.push(f"close the connection to {export}", reader.close)
        return reader

    def _open_window(self, undo: UndoStack, window: Window) -> str:
        """The node of ``window``; its undo goes on ``undo``."""
        daemon, image = self.workspace.daemon, self.image
        assert self.reader is not None
        is_whole = window == Window(0, self.reader.size)
        if self._node is None and is_whole:
            return open_disk(daemon, image, self.wanted.mode, self.workspace.make_scratch_file, undo)
        if self._node is None:
            node = daemon.add_known_window(image.fd, image.format, window, image=image.name)
        elif is_whole:
            return self._node
        else:
            node = daemon.add_window(self._node, window)
        undo.push(f"close the window {node}", lambda: daemon.remove_node(node))
        return node

    def _map(self, undo: UndoStack, window: Window) -> nbd.NbdDevice | IoctlDevice:
        daemon = self.workspace.daemon
        node = self._open_window(undo, window)
        export = daemon.export_nbd(node, writable=not self._readonly)
        last = node if node != self._node else None
        undo.push(f"remove the NBD export {export}", lambda: daemon.remove_export(export, and_node=last))
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
        self._devices.append(device)
        undo.push(f"forget {device.path}", lambda: self._devices.remove(device))
        return device


@dataclass(slots=True)
class _LaterReader:
    """A disk of ``size`` bytes that is opened when it is read for the first time."""

    size: int
    open: Callable[[], Reader]
    _reader: Reader | None = None

    def pread(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset``; fewer only at the end of the disk."""
        if self._reader is None:
            self._reader = self.open()
        return self._reader.pread(size, offset)
