"""Mount through a FUSE export of the storage daemon: any format as a plain file, and a loop device on that file."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import DeviceFailed
from .loop_mount import attach_loop
from .mount import Mount
from .privilege import missing_privilege
from .qemu.layers import open_disk
from .reader import FileReader, Reader, Window
from .stages import State
from .unmounting import filesystem_at

if TYPE_CHECKING:
    from .loop import LoopDevice
    from .undo import UndoStack


class FuseMount(Mount):
    """any format → file whose bytes are the virtual disk → loop device at the partition's offset and size.

    The whole disk is exported, not the partition: the partition table is then read from the same file, and one export
    serves both.
    """

    backend = "fuse"
    _fd = -1

    def _attach(self, undo: UndoStack) -> Reader:
        self._refuse_to_wait_for_itself()
        by_fuse = self.workspace.by_fuse
        by_fuse.append(self)
        undo.push(f"forget image {self.image.name!r}", lambda: by_fuse.remove(self))
        daemon = self.workspace.daemon
        wanted = self.wanted
        node = open_disk(
            daemon,
            self.image,
            wanted.mode,
            self.workspace.make_scratch_file,
            undo,
            overlay_size=wanted.overlay_size,
        )
        path = self.workspace.make_export_file(undo)
        try:
            export = daemon.export_file(node, path, writable=not self._readonly)
        except DeviceFailed as error:  # the daemon does not say why it could not mount its file
            missing = missing_privilege()
            if missing is None:
                raise
            raise missing from error
        undo.push(f"remove the FUSE export {path.name}", lambda: daemon.remove_export(export, and_node=node))
        self._fd = os.open(path, (os.O_RDONLY if self._readonly else os.O_RDWR) | os.O_CLOEXEC)
        undo.push(f"close {path.name}", self._close_export)
        return FileReader(self._fd, os.fstat(self._fd).st_size)

    def _refuse_to_wait_for_itself(self) -> None:
        """The daemon (qemu 7.2) answers no read of one FUSE export while it waits for a read of a file behind another.

        :raises DeviceFailed: the image is a file of a file system that the same daemon serves
        """
        files = [self.image.fd, *(layer.image.fd for layer in self.image.layers)]
        places = {os.fstat(fd).st_dev for fd in files}
        for mount in (one for served in self.workspace.by_fuse for one in (served, *served.family)):
            if mount.target is not None and mount.state is State.MOUNTED and filesystem_at(mount.target) in places:
                reason = f"the image is a file of image {mount.image.name!r}, which the same daemon serves by FUSE"
                hint = "copy it out of there first, and mount the copy"
                raise DeviceFailed(image=self.image.name, device="qemu-storage-daemon", reason=reason, hint=hint)

    def _share(self, base: Mount) -> None:
        super()._share(base)
        assert isinstance(base, FuseMount)
        self._fd = base._fd

    def _close_export(self) -> None:
        # Closing asks the daemon, and where that is dead the kernel answers ENOTCONN; the descriptor is closed all the
        # same (close(2)), and must not be closed again.
        with suppress(OSError):
            os.close(self._fd)

    def _map(self, undo: UndoStack, window: Window) -> LoopDevice:
        return attach_loop(self, self._fd, window, undo)
