"""What the mounts of one process share: a folder of its own, one storage daemon, one pool of NBD devices."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .findings import Findings
from .folders import served_folder
from .held_folder import HeldFolder
from .target import Target
from .undo import StillInUse, UndoStack

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from .fuse_mount import FuseMount
    from .nbd.pool import NbdPool
    from .qemu.daemon import StorageDaemon


@dataclass(frozen=True, slots=True)
class Owner:
    """For whom something is mounted: it stands in the notes that others read while they wait."""

    pid: int
    worker: str = ""
    test: str = ""


class Workspace:
    """Shared ground of every :class:`~.mount.Mount` in this process.

    ``token`` marks everything in the kernel that is mounted from here. The folder is ``call`` for system calls of this
    process and ``folder`` for people and other processes.

    :param uid: the user who is to reach the mount points, and nobody else but root; None is the calling user
    :param nbd_devices: how many NBD devices may be used on this machine
    :param nbd_start: the device index that is tried first (each worker its own, so that they rarely meet)
    """

    def __init__(self, *, uid: int | None = None, nbd_devices: int = 16, nbd_start: int = 0) -> None:
        self.uid = os.geteuid() if uid is None else uid
        self.nbd_devices = nbd_devices
        self.nbd_start = nbd_start
        self.findings = Findings()
        self.by_fuse: list[FuseMount] = []
        """The mounts that the storage daemon serves by FUSE."""
        self._undo = UndoStack()
        self._daemon: StorageDaemon | None = None
        self._pool: NbdPool | None = None
        self._count = 0
        self._numbers = 0
        self.held = HeldFolder(served_folder(self.uid))
        self.token = self.held.token
        # rmdir, never a tree removal: what is still in there may be somebody's mount.
        self._undo.push(f"remove {self.folder}", self.held.remove)
        self._spare: dict[str, str] = {}  # kind: path of what is there to be used again
        self._undo.push("remove what could have been used again", self._remove_spare)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def call(self) -> Path:
        """The folder, for system calls of this process."""
        return self.held.call

    @property
    def folder(self) -> Path:
        """The folder, for people and other processes."""
        return self.held.path

    def next_number(self) -> int:
        """A number that no mount here has had."""
        self._numbers += 1
        return self._numbers

    @property
    def daemon_pid(self) -> int | None:
        """Process id of the storage daemon, None when none runs."""
        return self._daemon.pid if self._daemon is not None else None

    @property
    def daemon(self) -> StorageDaemon:
        """The storage daemon, started at the first use and anew after it died."""
        from .qemu.daemon import StorageDaemon

        if self._daemon is not None and not self._daemon.alive:
            self._daemon.bury()  # the mounts that it served, and their exports, are undone each in its time
            self._daemon = None
        if self._daemon is None:
            self._daemon = StorageDaemon(self.call, remembers=self.uid == os.geteuid())
        return self._daemon

    @property
    def pool(self) -> NbdPool:
        """The leases of NBD devices, shared with every process of the machine."""
        from .nbd.pool import NbdPool, lock_folder

        if self._pool is None:
            self._pool = NbdPool(lock_folder(), self.nbd_devices, self.nbd_start)
        return self._pool

    def give_up_waiting(self, number: int) -> None:
        """Mount ``number`` does not wait for an NBD device any more, if it did."""
        if self._pool is not None:
            self._pool.give_up(f"{self.token}:{number}")

    def make_mountpoint(self, undo: UndoStack, *, is_device_gone: Callable[[], bool] = lambda: False) -> Target:
        """A new empty folder to mount at; ``undo`` removes it once nothing is mounted there.

        :param is_device_gone: asked at the undo: whether the device that was mounted here is gone. Then it is mounted
            in no other mount namespace either, and the folder may be used again, under another name; else it is
            removed, for the kernel unmounts what others have at a folder that goes.
        """
        path = self._take("mount", _make_folder)
        shown = self.folder / path.rpartition("/")[2]
        undo.push(f"remove {shown}", lambda: self._give_back("mount", path, os.rmdir, again=is_device_gone()))
        return Target(shown, path)

    def make_export_file(self, undo: UndoStack) -> Path:
        """A new empty file to mount a FUSE export over; ``undo`` removes it once nothing is mounted there."""
        path = self._take("export", _make_file)
        undo.push(f"remove {path}", lambda: self._give_back("export", path, os.unlink, again=True))
        return Path(path)

    def _take(self, kind: str, make: Callable[[str], object]) -> str:
        """A path in the folder, for system calls, that nothing has had yet: ``mount-1``, ``export-2``."""
        path = self._spare.pop(kind, None)
        if path is None:
            path = self._fresh_path(kind)
            make(path)
        return path

    def _give_back(self, kind: str, path: str, remove: Callable[[str], object], *, again: bool) -> None:
        # Making and removing a folder takes four times as long as renaming it, where the folder is on a disk. By a new
        # name, so that nobody who has kept the path of one image finds the next one there.
        try:
            if again and kind not in self._spare:
                fresh = self._fresh_path(kind)
                os.rename(path, fresh)  # noqa: PTH104  (at every unmount)
                self._spare[kind] = fresh
            else:
                remove(path)
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise StillInUse("something is mounted there") from None
            raise

    def _fresh_path(self, kind: str) -> str:
        self._count += 1
        return f"{self.call}/{kind}-{self._count}"

    def _remove_spare(self) -> None:
        for kind, remove in (("mount", os.rmdir), ("export", os.unlink)):
            if path := self._spare.pop(kind, None):
                with suppress(FileNotFoundError):
                    remove(path)

    def make_scratch_file(self) -> int:
        """A descriptor of a nameless temporary file: it is gone with its last descriptor, whatever happens."""
        import tempfile  # takes 6 ms, and only mode overlay needs it

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
        if self._pool is not None:
            self._pool.leave()
        self._undo.close("the folder of this process")


def _make_folder(path: str) -> None:
    os.mkdir(path, 0o700)  # noqa: PTH102  (of text, as its counterpart)


def _make_file(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
