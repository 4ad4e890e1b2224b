"""The test process's side of mounting: the images that one scope holds, and their release when it ends."""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .client import current_client
from .errors import (
    CapabilityMissing,
    DeviceTimeout,
    ImageInvalid,
    ImageMountError,
    ImageNotFound,
    ImageUnreadable,
    RequestInvalid,
    TeardownError,
)
from .facts import DeviceFacts, MountFacts
from .helper.protocol import Open, Release
from .mounted_image import BlockDevice, MountedImage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from .client import Client
    from .config import Settings

Thing = TypeVar("Thing", MountedImage, BlockDevice)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1


class Pending(Generic[Thing]):
    """An image that will be mounted or attached on entering, and released on leaving or when its scope ends.

    It can be entered again after it was left.
    """

    def __init__(
        self,
        session: MountSession,
        name: str,
        open_it: Callable[[Pending[Thing]], Thing],
        close_it: Callable[[Thing], None],
    ) -> None:
        self._session = session
        self._name = name
        self._open: Callable[[Pending[Thing]], Thing] = open_it
        self._close: Callable[[Thing], None] = close_it
        self._thing: Thing | None = None
        self._mount: int | None = None
        self._client: Client | None = None

    def __repr__(self) -> str:
        return f"<{self._name!r}, {'open' if self._thing else 'not open: use it in a with statement'}>"

    def __enter__(self) -> Thing:
        if self._mount is not None:
            raise RequestInvalid(argument="image", value=repr(self._name), reason="this mount is open already")
        try:
            self._thing = self._open(self)
        except BaseException:
            self.release()
            raise
        return self._thing

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release it, if it is open."""
        if self._thing is not None:
            thing, self._thing = self._thing, None
            self._close(thing)
        self.release()

    def claim(self, client: Client) -> int:
        """The number by which it will be released, whatever becomes of the request."""
        self._client, self._mount = client, client.new_mount()
        return self._mount

    def release(self) -> None:
        """Have the helper undo it. A failure leaves it claimed, so that the end of the scope tries again."""
        if self._mount is not None and self._client is not None:
            self._client.ask(Release(self._mount))
            self._mount = None
            self._session.forget(self)


class MountSession:
    """What one fixture scope mounts and attaches.

    :param test: node id of the test, or of the scope, that others read when they wait for a device
    :param folders: where relative image paths are looked for, in order
    """

    def __init__(
        self,
        settings: Settings,
        *,
        test: str = "",
        worker: str = "",
        nbd_start: int = 0,
        folders: Iterable[Path] = (),
        unavailable: Callable[[CapabilityMissing], None] | None = None,
    ) -> None:
        self._settings = settings
        self._test = test
        self._worker = worker
        self._nbd_start = nbd_start
        self._folders = tuple(folders)
        self._unavailable = unavailable
        self._open: list[Pending[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release everything that is still open, the latest first; every one is tried.

        :raises TeardownError: naming each that failed
        """
        failures: list[str] = []
        for pending in reversed(self._open.copy()):
            try:
                pending.close()
            except TeardownError as error:
                failures += error.failures
            except ImageMountError as error:
                failures.append(str(error))
        self._open.clear()
        if failures:
            raise TeardownError(subject=self._test or "this process's mounts", failures=failures)

    def forget(self, pending: Pending[Any]) -> None:
        """Called by ``pending`` once it is released."""
        if pending in self._open:
            self._open.remove(pending)

    def mount(
        self,
        image: str | os.PathLike[str],
        partition: int | str | None = None,
        *,
        format: str | None = None,
        mode: str = "ro",
        fstype: str | None = None,
        options: Sequence[str] | str = (),
        mountpoint: str | os.PathLike[str] | None = None,
        backend: str | None = None,
        timeout: float | None = None,
    ) -> Pending[MountedImage]:
        """A context manager that mounts ``image`` and gives a :class:`~.mounted_image.MountedImage`.

        :param image: path of the image; a relative one is looked for in the folders of ``imagemount_path``, then in
            rootdir, then beside the test
        :param partition: None when the image itself holds the file system; 1, 2, … as in the partition table;
            ``"PARTLABEL=…"``, ``"PARTUUID=…"``, ``"LABEL=…"``, ``"UUID=…"``, ``"TYPE=…"``; ``"auto"`` or -1
        :param format: ``"raw"``, ``"qcow2"``, …; None detects it from the content
        :param mode: ``"ro"``: not a byte of the image changes; ``"overlay"``: writable, and thrown away at teardown;
            ``"rw"``: writes reach the image
        :param fstype: type of the file system; None takes it from the superblock
        :param options: further mount options
        :param mountpoint: an existing empty folder to mount at; None makes one
        :param backend: ``"auto"``, ``"loop"``, ``"nbd"``, ``"fuse"``; None takes the setting
        :param timeout: seconds to wait for a device; None takes the setting
        :raises ImageMountError: on entering, whatever the reason; nothing is left behind
        """
        request = self._request(image, partition, format, mode, fstype, options, backend)

        def open_it(pending: Pending[MountedImage]) -> MountedImage:
            reply = self._ask(pending, image, request, mountpoint, timeout)
            return MountedImage(MountFacts.from_wire(reply["facts"]), pending.release)

        return Pending(self, str(image), open_it, MountedImage.unmount)

    def attach(
        self,
        image: str | os.PathLike[str],
        partition: int | str | None = None,
        *,
        format: str | None = None,
        mode: str = "ro",
        partitions: bool = False,
        backend: str | None = None,
        timeout: float | None = None,
    ) -> Pending[BlockDevice]:
        """A context manager that makes ``image`` a block device and gives a :class:`~.mounted_image.BlockDevice`.

        The parameters are those of :meth:`mount`, but that ``partition=None`` attaches the whole disk.

        :param partitions: make partition nodes too (``/dev/loop3p1``)
        """
        if partitions and partition is not None:
            reason = "a partition has no partition nodes; leave out partition="
            raise RequestInvalid(argument="partitions", value="True", reason=reason)
        request = self._request(image, partition, format, mode, None, (), backend)
        request = {**request, "attach_only": True, "partition_nodes": partitions}

        def open_it(pending: Pending[BlockDevice]) -> BlockDevice:
            reply = self._ask(pending, image, request, None, timeout)
            return BlockDevice(DeviceFacts.from_wire(reply["facts"]), pending.release)

        return Pending(self, str(image), open_it, BlockDevice.detach)

    def _request(
        self,
        image: str | os.PathLike[str],
        partition: int | str | None,
        format: str | None,
        mode: str,
        fstype: str | None,
        options: Sequence[str] | str,
        backend: str | None,
    ) -> dict[str, Any]:
        return {
            "name": os.fspath(image),
            "partition": partition,
            "format": format,
            "mode": mode,
            "fstype": fstype,
            "options": (options,) if isinstance(options, str) else tuple(options),
            "backend": self._settings.backend if backend is None else backend,
            "test": self._test,
            "attach_only": False,
            "partition_nodes": False,
        }

    def _ask(
        self,
        pending: Pending[Any],
        image: str | os.PathLike[str],
        request: dict[str, Any],
        mountpoint: str | os.PathLike[str] | None,
        timeout: float | None,
    ) -> dict[str, Any]:
        with ExitStack() as descriptors:
            path = find_image(os.fspath(image), self._folders)
            fds = [open_image(path, request["name"], request["mode"])]
            descriptors.callback(os.close, fds[0])
            if mountpoint is not None:
                fds.append(_open_mountpoint(mountpoint))
                descriptors.callback(os.close, fds[1])
            try:
                client = current_client(self._settings, worker=self._worker, nbd_start=self._nbd_start)
                self._open.append(pending)
                mount = pending.claim(client)
                open_request = Open(mount=mount, source=str(path), **request)
                return self._until_free(client, open_request, tuple(fds), timeout)
            except CapabilityMissing as missing:
                if self._unavailable is not None:
                    self._unavailable(missing)
                raise

    def _until_free(self, client: Client, request: Open, fds: tuple[int, ...], timeout: float | None) -> dict[str, Any]:
        start = time.monotonic()
        timeout = self._settings.timeout if timeout is None else timeout
        pause = _FIRST_PAUSE
        while "busy" in (reply := client.ask(request, fds)):
            waited = time.monotonic() - start
            if waited >= timeout:
                raise DeviceTimeout(image=request.name, waited=waited, holders=reply["busy"])
            time.sleep(min(pause, timeout - waited))
            pause = min(pause * 2, _LONGEST_PAUSE)
        return reply


def find_image(image: str, folders: Sequence[Path]) -> Path:
    """The absolute path of ``image``, looked for in ``folders`` in order when it is relative.

    :raises ImageNotFound: listing where it looked
    """
    given = Path(image).expanduser()
    looked: list[str] = []
    for folder in folders or (Path.cwd(),):
        path = Path(os.path.abspath(folder / given))  # noqa: PTH100  (resolve() would follow links)
        if os.path.lexists(path):
            return path
        if str(path) not in looked:
            looked.append(str(path))
    raise ImageNotFound(image=image, looked=looked)


def open_image(path: Path, name: str, mode: str) -> int:
    """A descriptor of the image, opened with the caller's own privilege.

    :raises ImageUnreadable: the caller may not read it, or for mode ``rw`` not write it
    :raises ImageNotFound: a link that leads nowhere
    """
    # O_NONBLOCK: a FIFO would wait for a writer.
    flags = (os.O_RDWR if mode == "rw" else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        raise ImageNotFound(image=name, looked=[f"{path} (a link to what does not exist)"]) from None
    except IsADirectoryError:
        raise ImageInvalid(image=name, reason="it is a directory", hint="give the path of an image file") from None
    except OSError as error:
        hint = "allow it with chmod, or run as a user who may"
        if error.errno in (errno.EROFS, errno.EACCES, errno.ETXTBSY) and mode == "rw":
            hint = "use mode='overlay' to write without changing the image, or copy it to where it can be written"
        reason = error.strerror or str(error)
        raise ImageUnreadable(image=name, mode=mode, reason=reason, hint=hint) from None
    os.set_blocking(fd, True)
    return fd


def _open_mountpoint(path: str | os.PathLike[str]) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        reason = f"{error.strerror}; give an existing empty folder"
        raise RequestInvalid(argument="mountpoint", value=repr(os.fspath(path)), reason=reason) from None
    status = os.fstat(fd)
    reason = ""
    if os.listdir(fd):  # noqa: PTH208  (of a descriptor)
        reason = "the folder is not empty"
    elif os.geteuid() not in (0, status.st_uid) or not stat.S_ISDIR(status.st_mode):
        reason = "the folder belongs to another user"
    if reason:
        os.close(fd)
        raise RequestInvalid(argument="mountpoint", value=repr(os.fspath(path)), reason=reason)
    return fd
