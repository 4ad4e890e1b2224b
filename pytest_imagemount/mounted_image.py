"""What the factories give to a test: a mounted image, or an attached block device."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .contents.system_facts import SystemFacts
from .errors import describe_part, is_ours
from .image_path import ImagePath
from .image_root import ImageRoot, LocalOpener

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from testinfra.host import Host  # type: ignore[import-untyped]

    from .facts import DeviceFacts, MountFacts
    from .image_root import Opener
    from .manifest import Manifest
    from .running.completed import Completed
    from .running.run import Word
    from .running.starter import Starter

__tracebackhide__ = is_ours


class MountedImage(SystemFacts):
    """A file system of an image, mounted: ``image / "etc/hostname"`` is an ImagePath.

    The facts of the mount are attributes. :attr:`root` and ``os.fspath(image)`` are the plain mount point on this
    machine, for programs; below it, unlike with an ImagePath, an absolute link leads to this machine's files.

    :param release: undoes the mount. It runs after the descriptor of the image's root is closed, until it has succeeded
        once, and may be entered again from a signal handler.
    :param opener: opens files inside the image; by default with the rights of this process
    :param starter: starts commands of the image; None: there is nobody who could
    :raises CapabilityMissing: there is no openat2. ``release`` was not called: the caller still owns the mount.
    """

    def __init__(
        self,
        facts: MountFacts,
        release: Callable[[], None],
        *,
        opener: Opener | None = None,
        starter: Starter | None = None,
    ) -> None:
        self.facts = facts
        self._starter = starter
        opener = opener or LocalOpener(facts.mountpoint)
        self._image_root = ImageRoot(facts.source.name, facts.mountpoint, facts.mode, opener, part=facts.part)
        self._undo = _Undo(release)

    @property
    def root(self) -> Path:
        """The mount point on this machine."""
        return self.facts.mountpoint

    @property
    def title(self) -> str:
        """What to call it in a message: ``disk.qcow2 partition 2``."""
        return self._image_root.title

    @property
    def source(self) -> Path:
        """The image file."""
        return self.facts.source

    @property
    def format(self) -> str:
        """Of the image file: ``raw``, ``qcow2``, …"""
        return self.facts.format

    @property
    def partition(self) -> int | None:
        """Number of the partition; None where the image itself holds the file system."""
        return self.facts.partition

    @property
    def volume(self) -> str | None:
        """The logical volume of LVM that holds the file system, as ``vg/root``; None where it is in none."""
        return self.facts.volume

    @property
    def device(self) -> str:
        """The block device, as ``/dev/loop3``."""
        return self.facts.device

    @property
    def fstype(self) -> str:
        """``ext4``, ``vfat``, …"""
        return self.facts.fstype

    @property
    def label(self) -> str | None:
        """Of the file system; None where it has none."""
        return self.facts.label

    @property
    def uuid(self) -> str | None:
        """Of the file system; None where it has none."""
        return self.facts.uuid

    @property
    def mode(self) -> str:
        """``ro``, ``overlay`` or ``rw``."""
        return self.facts.mode

    @property
    def backend(self) -> str:
        """``loop``, ``nbd`` or ``fuse``."""
        return self.facts.backend

    @property
    def dirty(self) -> bool:
        """Whether it was not cleanly unmounted, and its journal not replayed, since nothing of it may change.

        The files are then as they were at the moment of the crash. Mode ``overlay`` replays the journal.
        """
        return self.facts.dirty

    @property
    def mounted(self) -> bool:
        """Whether the mount was not undone yet."""
        return self._undo.pending

    def unmount(self) -> None:
        """Unmount now, before the test ends; again is nothing. Where it fails, it may be called again."""
        self._image_root.close()
        self._undo()

    def run(
        self,
        argv: Sequence[Word],
        *,
        timeout: float = 30.0,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Word = "/",
        user: str | int = "root",
        check: bool = False,
        network: bool = False,
        writable: bool = False,
    ) -> Completed:
        """Run a command of the image, ``["/bin/ls", "/etc"]``, and return what it left; needs ``imagemount_run=allow``.

        It sees the image's files, read-only, and private ``/proc``, ``/dev``, ``/tmp`` and ``/run`` where the image has
        such folders; no other process, no network, no device. It has no capabilities, and its root is no user of this
        machine. When it ends, what it has started is killed.

        :param timeout: seconds
        :param input: its stdin
        :param env: variables beyond ``PATH``, ``HOME``, ``LC_ALL=C.UTF-8``, ``TERM=dumb`` and ``SYSTEMD_OFFLINE=1``
        :param user: name or number, as in the image
        :param check: make a status other than 0 an error
        :param network: let it use this machine's network
        :param writable: let it change the image, which modes ``overlay`` and ``rw`` take
        :raises CommandNotAllowed: the setting does not allow it
        :raises CommandFailed: it could not be run, wrote more than 16 MiB, or with ``check`` failed
        :raises CommandTimeout: it took too long
        """
        from .running.run import run

        return run(
            self,
            argv,
            timeout=timeout,
            input=input,
            env=env,
            cwd=cwd,
            user=user,
            check=check,
            network=network,
            writable=writable,
        )

    def testinfra(self) -> Host:
        """A testinfra ``Host`` for the image: ``image.testinfra().package("nginx").is_installed``.

        Its modules run commands of the image by :meth:`run`. Needs ``pip install pytest-imagemount[testinfra]``.

        :raises CommandNotAllowed: the setting does not allow to run commands
        :raises CapabilityMissing: testinfra is not installed
        """
        from .testinfra_host import make_host

        return make_host(self)

    def manifest(self, *, content: bool = True, times: bool = False, ignore: Iterable[str] = ()) -> Manifest:
        """Every file with its facts, to compare, to write to a file and to read back.

        :param content: read regular files for their SHA-256
        :param times: the times of the last change are facts too
        :param ignore: patterns of paths to leave out with all below them, as ``"/var/log/**"``
        """
        from .manifest import Manifest

        return Manifest.of(self, content=content, times=times, ignore=ignore)

    def __truediv__(self, path: str | os.PathLike[str]) -> ImagePath:
        return ImagePath(self._image_root) / path

    def __fspath__(self) -> str:
        return str(self.root)

    def __str__(self) -> str:
        return str(self.root)

    def __repr__(self) -> str:
        state = f"mounted at {self.root}" if self.mounted else "unmounted"
        kind = f"{self.fstype}, {self.mode}, {self.device}"
        return f"<{type(self).__name__} {_name(self.facts)} ({kind}) {state}>"


class BlockDevice:
    """An image, or one partition of it, attached as a block device and not mounted.

    The facts are attributes; ``os.fspath(device)`` is the device node.

    :param release: undoes the attachment; runs until it has succeeded once, and may be entered again from a signal
        handler
    """

    def __init__(self, facts: DeviceFacts, release: Callable[[], None]) -> None:
        self.facts = facts
        self._undo = _Undo(release)

    @property
    def path(self) -> Path:
        """The device node, as ``/dev/loop3``."""
        return self.facts.path

    @property
    def source(self) -> Path:
        """The image file."""
        return self.facts.source

    @property
    def format(self) -> str:
        """Of the image file: ``raw``, ``qcow2``, …"""
        return self.facts.format

    @property
    def partition(self) -> int | None:
        """Number of the partition; None where the device is the whole image."""
        return self.facts.partition

    @property
    def volume(self) -> str | None:
        """The logical volume of LVM that the device is, as ``vg/root``; None where it is none."""
        return self.facts.volume

    @property
    def size(self) -> int:
        """Bytes."""
        return self.facts.size

    @property
    def mode(self) -> str:
        """``ro``, ``overlay`` or ``rw``."""
        return self.facts.mode

    @property
    def backend(self) -> str:
        """``loop``, ``nbd`` or ``fuse``."""
        return self.facts.backend

    @property
    def partitions(self) -> dict[int, Path]:
        """The device node of each partition number; empty unless nodes were asked for."""
        return dict(self.facts.partitions)

    @property
    def attached(self) -> bool:
        """Whether the device was not detached yet."""
        return self._undo.pending

    def detach(self) -> None:
        """Detach now, before the test ends; again is nothing. Where it fails, it may be called again."""
        self._undo()

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        state = f"attached at {self.path}" if self.attached else "detached"
        return f"<BlockDevice {_name(self.facts)} ({self.size} bytes, {self.mode}) {state}>"


class _Undo:
    """Runs an undo until it has succeeded once; one thread at a time."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self.pending = True
        self._undo = undo
        self._lock = threading.RLock()  # reentrant: a signal handler may tear down in the middle of it

    def __call__(self) -> None:
        with self._lock:
            if self.pending:
                self._undo()
                self.pending = False


def _name(facts: MountFacts | DeviceFacts) -> str:
    name = repr(facts.source.name)
    return name if facts.part is None else f"{name} {describe_part(facts.part)}"
