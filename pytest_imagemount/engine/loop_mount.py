"""Mount through a loop device on the image file itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import loop
from .mount import Mount
from .reader import FileReader, Reader, Window

if TYPE_CHECKING:
    from .undo import UndoStack


class LoopMount(Mount):
    """raw → loop device at the partition's offset and size: no partition nodes, no udev, no kpartx."""

    backend = "loop"

    def _attach(self, undo: UndoStack) -> Reader:
        return FileReader(self.image.fd, self.image.virtual_size)

    def _map(self, undo: UndoStack, window: Window) -> loop.LoopDevice:
        return attach_loop(self, self.image.fd, window, undo)


def attach_loop(mount: Mount, fd: int, window: Window, undo: UndoStack) -> loop.LoopDevice:
    """A loop device of ``window`` of ``fd``, with the detach registered. Shared with the FUSE driver."""
    device = loop.attach(
        fd,
        window,
        image=mount.image.name,
        readonly=mount.wanted.readonly,
        tag=mount.tag,
        sector_size=mount.table.sector_size if mount.table and mount.wanted.partition_nodes else 512,
        partition_nodes=mount.wanted.partition_nodes,
        node_folder=mount.workspace.call,
    )
    undo.push(f"detach {device.path}", device.detach)
    return device
