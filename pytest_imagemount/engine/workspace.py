"""What the mounts of one process share: a folder of its own, one storage daemon, one pool of NBD devices."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .folders import run_folder
from .undo import UndoStack

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .pool import NbdPool
    from .qemu import StorageDaemon


@dataclass(frozen=True, slots=True)
class Owner:
    """For whom something is mounted: it stands in the notes that others read while they wait."""

    pid: int
    worker: str = ""
    test: str = ""


class Workspace:
    """Shared ground of every :class:`~.mount.Mount` in this process.

    :param folder: a folder of this process's own, made when it is not there; the default is a new one in the run
        folder
    :param nbd_devices: how many NBD devices may be used on this machine
    :param nbd_start: the device index that is tried first (each worker its own, so that they rarely meet)
    """

    def __init__(self, folder: Path | None = None, *, nbd_devices: int = 16, nbd_start: int = 0) -> None:
        self.nbd_devices = nbd_devices
        self.nbd_start = nbd_start
        self._undo = UndoStack()
        self._daemon: StorageDaemon | None = None
        self._pool: NbdPool | None = None
        self._count = 0
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=run_folder()))
        else:
            folder.mkdir(mode=0o700, exist_ok=True)
        self.folder = folder
        # rmdir, never a tree removal: what is still in there may be somebody's mount.
        self._undo.push(f"remove {folder}", self._remove_folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def daemon(self) -> StorageDaemon:
        """The storage daemon, started at the first use and anew after it died."""
        from .qemu import StorageDaemon

        if self._daemon is not None and not self._daemon.alive:
            self._daemon.stop()
            self._daemon = None
        if self._daemon is None:
            self._daemon = StorageDaemon(self.folder)
        return self._daemon

    @property
    def pool(self) -> NbdPool:
        """The leases of NBD devices, shared with every process of the machine."""
        from .pool import NbdPool, lock_folder

        if self._pool is None:
            self._pool = NbdPool(lock_folder(), self.nbd_devices, self.nbd_start)
        return self._pool

    def fresh_path(self, kind: str) -> Path:
        """A path in the folder that nothing has had yet: ``mount-1``, ``export-2``."""
        self._count += 1
        return self.folder / f"{kind}-{self._count}"

    def make_mountpoint(self, undo: UndoStack) -> Path:
        """A new empty folder to mount at; ``undo`` removes it once nothing is mounted there."""
        path = self.fresh_path("mount")
        path.mkdir(mode=0o700)
        undo.push(f"remove {path}", path.rmdir)
        return path

    def make_scratch_file(self) -> int:
        """A descriptor of a nameless temporary file: it is gone with its last descriptor, whatever happens."""
        try:
            return os.open(tempfile.gettempdir(), os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError:  # a file system without O_TMPFILE
            fd, path = tempfile.mkstemp(prefix="imagemount-", dir=tempfile.gettempdir())
            Path(path).unlink()
            return fd

    def close(self) -> None:
        """Stop the daemon and remove the folder.

        :raises TeardownError: the daemon would not stop, or something is left in the folder
        """
        if self._daemon is not None:
            self._daemon.stop()
            self._daemon = None
        self._undo.close(f"workspace {self.folder}")

    def _remove_folder(self) -> None:
        for own in self.folder.glob("loop*"):  # device nodes of a container without devtmpfs
            own.unlink()
        with suppress(FileNotFoundError):
            self.folder.rmdir()
