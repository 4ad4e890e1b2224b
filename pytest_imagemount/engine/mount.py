"""Mount: one image's way from a file to a mounted file system in three stages, and back.

``attach`` makes the bytes of the virtual disk readable, ``map`` chooses the partition and makes a block device of
just that window, ``mount`` mounts the file system on it. Each stage keeps its own undo stack; a stage that fails
undoes itself; an undo tries every step.
"""

from __future__ import annotations

import errno
import os
import time
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from ..errors import FilesystemNotMountable, MountFailed, RequestInvalid, StageError, TeardownError
from . import filesystems, syscalls
from .filesystem_lock import lock_filesystem, needs_turns
from .image_lock import lock_image
from .reader import FileReader, Reader, Window
from .superblock import Superblock, probe, probe_reader
from .tables.read import read_table
from .tables.selection import select
from .target import Target
from .undo import UndoStack, deadline
from .unmounting import unmount
from .wanted import Wanted
from .workspace import Owner, Workspace

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .adopt import AdoptedMount
    from .image import Image
    from .tables.read import Partition, PartitionTable

# Once a step of a close has failed: how long the steps after it may take together. What they undo is most likely held
# by what the failed one left.
_PATIENCE_AFTER_FAILURE = 0.1


class State(Enum):
    """How far a :class:`Mount` has come."""

    NEW = "new"
    ATTACHED = "attached"
    MAPPED = "mapped"
    MOUNTED = "mounted"


class Device(Protocol):
    """A block device that we attached."""

    @property
    def path(self) -> str: ...

    @property
    def node(self) -> str:
        """The device for system calls of this process, where ``path`` is for people."""
        ...

    @property
    def attached(self) -> bool:
        """Whether the kernel still has it, and for us."""
        ...

    @property
    def fd(self) -> int:
        """A descriptor that holds the device until :meth:`arm`; -1 after it."""
        ...

    def arm(self) -> None:
        """Let go, so that the kernel itself detaches the device at the last unmount."""
        ...

    def detach(self) -> None:
        """Let go, and see the device gone from the kernel's view."""
        ...


class Mount:
    """The three stages for one image. The subclasses differ in how bytes become a block device.

    Use it as a context manager for all three, or call ``attach``, ``map``, ``mount`` and ``unmount``, ``unmap``,
    ``detach`` one by one.

    :param wanted: which part of the image, and mounted how; None is all of it, read-only
    :param mountpoint: an existing empty folder, as a path or as the descriptor that a :class:`~.target.Target` holds;
        None makes one in the workspace
    :param number: of this mount in its workspace, for its ``tag``; None takes the next
    """

    backend: ClassVar[str]

    def __init__(
        self,
        image: Image,
        workspace: Workspace,
        wanted: Wanted | None = None,
        *,
        mountpoint: Path | Target | None = None,
        owner: Owner | None = None,
        number: int | None = None,
    ) -> None:
        self.image = image
        self.workspace = workspace
        self.wanted = wanted or Wanted()
        self.flags, self.data = filesystems.split_options(self.wanted.options)
        self.wanted_target = Target.at(mountpoint) if isinstance(mountpoint, Path) else mountpoint
        self.target = self.wanted_target
        self.tag = f"{workspace.token}:{workspace.next_number() if number is None else number}"
        self.owner = owner or Owner(os.getpid())
        self.state = State.NEW
        self.reader: Reader | None = None
        self.table: PartitionTable | None = None
        self.partition: Partition | None = None
        self.window: Window | None = None
        self.superblock: Superblock | None = None
        self.device: Device | None = None
        self.nodes: dict[int, Path] = {}
        self.fstype = ""
        self.dirty = False
        self._undo = {stage: UndoStack() for stage in State}

    @staticmethod
    def for_format(
        image: Image,
        workspace: Workspace,
        wanted: Wanted | None = None,
        *,
        backend: str = "auto",
        mountpoint: Path | Target | None = None,
        owner: Owner | None = None,
        number: int | None = None,
    ) -> Mount:
        """The driver for ``image``: raw goes through loop; every other format, and ``overlay``, through NBD or FUSE.

        :raises RequestInvalid: ``backend`` cannot serve this format
        :raises CapabilityMissing: ``backend`` is not to be had on this machine
        """
        from .backends import choose

        wanted = wanted or Wanted()
        module, name = choose(backend, image, wanted.mode)
        driver: type[Mount] = getattr(import_module(module), name)
        return driver(image, workspace, wanted, mountpoint=mountpoint, owner=owner, number=number)

    @staticmethod
    def for_device(device: str | os.PathLike[str]) -> AdoptedMount:
        """The driver for a device that is attached already: its state is adopted, so that it can be torn down.

        ``device`` may be a whole device (``/dev/loop3``, ``/dev/nbd0``), the kernel's partition node
        (``/dev/nbd0p1``, ``/dev/loop3p2``) or one of the device mapper's (``/dev/mapper/nbd0p1``).
        """
        from .adopt import adopt

        return adopt(device)

    @property
    def mountpoint(self) -> Path | None:
        """Where it is mounted, or will be; None before the workspace has made a place."""
        return self.target.path if self.target else None

    @property
    def _readonly(self) -> bool:
        return self.wanted.readonly

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self, *, attach_only: bool = False) -> None:
        """All three stages, or the first two; a failure leaves nothing behind."""
        try:
            self.attach()
            self.map()
            if not attach_only:
                self.mount()
        except BaseException as error:
            self._undo_after(error)
            raise

    def close(self) -> None:
        """Every undo that is still due, within the :func:`~.undo.deadline` that is set.

        Every one is tried, but those that would pull the ground from under what the kernel still uses: the device of a
        busy mount, the export of a busy device.

        :raises TeardownError: naming each step that failed. Calling again tries those again.
        """
        order = (State.MOUNTED, State.MAPPED, State.ATTACHED)
        failures = self._undo[State.MOUNTED].run()
        for stage, holds in ((State.MAPPED, self._is_mounted), (State.ATTACHED, self._is_attached)):
            if failures and self._undo[stage]:
                if holds():
                    break
                with deadline(time.monotonic() + _PATIENCE_AFTER_FAILURE):
                    failures += self._undo[stage].run()
            else:
                failures += self._undo[stage].run()
        self.state = next((stage for stage in order if self._undo[stage]), State.NEW)
        if failures:
            raise TeardownError(subject=f"image {self.image.name!r}", failures=failures)

    def attach(self) -> None:
        """image → readable bytes of the virtual disk (``reader``).

        :raises ImageLocked: others hold the image in a way that excludes ``mode``
        """
        self._require("attach", State.NEW)
        with self._stage(State.ATTACHED) as undo:
            lock = lock_image(self.image.fd, self.image.name, exclusive=self.wanted.mode == "rw")
            undo.push("unlock the image", lock.release)
            self.reader = self._attach(undo)

    def map(self) -> None:
        """virtual disk → block device of the chosen partition (``device``)."""
        self._require("map", State.ATTACHED)
        assert self.reader is not None
        with self._stage(State.MAPPED) as undo:
            self._choose(self.reader)
            assert self.window is not None
            self.device = self._map(undo, self.window)
            if self.wanted.partition_nodes and self.table:
                from .tables.partition_nodes import add_nodes

                self.nodes = add_nodes(self.device, self.table, undo)

    def mount(self) -> None:
        """block device → file system at ``mountpoint``."""
        self._require("mount", State.MAPPED)
        assert self.device is not None
        with self._stage(State.MOUNTED) as undo:
            self.fstype = self._identify(self.device)
            self._take_turn(undo)
            target = self.wanted_target or self.workspace.make_mountpoint(undo)
            self._mount(self.device, target, self.fstype)
            undo.push(f"unmount {target.path}", lambda: unmount(target))
            self.device.arm()
            self.target = target

    def unmount(self) -> None:
        """Undo of :meth:`mount`."""
        self._undo_stage("unmount", State.MOUNTED, State.MAPPED)

    def unmap(self) -> None:
        """Undo of :meth:`map`."""
        self._undo_stage("unmap", State.MAPPED, State.ATTACHED)

    def detach(self) -> None:
        """Undo of :meth:`attach`."""
        self._undo_stage("detach", State.ATTACHED, State.NEW)

    # What the subclasses decide.

    def _attach(self, undo: UndoStack) -> Reader:
        """Make the virtual disk's bytes readable; register each undo."""
        raise NotImplementedError

    def _map(self, undo: UndoStack, window: Window) -> Device:
        """Make a block device of ``window``; register its undo."""
        raise NotImplementedError

    # What they share.

    def _choose(self, reader: Reader) -> None:
        whole_disk = Window(0, reader.size)
        whole = self.wanted.whole and self.wanted.partition is None
        if not whole or self.wanted.partition_nodes:  # a disk with a corrupt table can still be attached
            self.table = read_table(reader, self.image.name)
        if whole:
            self.window = whole_disk
            return
        self.partition = select(
            self.table, self.wanted.partition, self.image.name, probe=lambda window: self._probe(reader, window)
        )
        self.window = self.partition.window if self.partition else whole_disk

    def _probe(self, reader: Reader, window: Window) -> Superblock | None:
        if isinstance(reader, FileReader):
            return probe(reader.fd, window, image=self.image.name)
        return probe_reader(reader, window, image=self.image.name)

    def _identify(self, device: Device) -> str:
        """The file system type: as the caller says, else as in the superblock.

        :raises FilesystemNotMountable: saying what is there instead
        """
        assert self.window is not None
        if isinstance(self.reader, FileReader):
            # Not through the device: its page cache is cold, which cost 1.6 ms where the file's costs 0.2 ms.
            found = self._probe(self.reader, self.window)
        else:
            found = probe(device.fd, Window(0, self.window.size), image=self.image.name)
        self.superblock = found
        if self.wanted.fstype is not None:
            return self.wanted.fstype
        if found is not None and found.usage == "filesystem":
            return found.type
        place = self.partition.number if self.partition else None
        known = found.type if found else None
        reason, hint = _not_mountable(found, self.partition)
        raise FilesystemNotMountable(image=self.image.name, partition=place, found=known, reason=reason, hint=hint)

    def _take_turn(self, undo: UndoStack) -> None:
        """Lock the file system, where this kernel mounts it once only.

        :raises FilesystemLocked: others have it mounted
        """
        if self.superblock and self.superblock.uuid and needs_turns(self.fstype):
            lock = lock_filesystem(self.fstype, self.superblock.uuid, self.image.name)
            undo.push(f"unlock the {self.fstype}", lock.release)

    def _is_mounted(self) -> bool:
        return self.device is not None and self.target is not None and self.target.shows(self.device.path)

    def _is_attached(self) -> bool:
        return self.device is not None and self.device.attached

    def _mount(self, device: Device, target: Target, fstype: str) -> None:
        if not filesystems.is_block_filesystem(fstype):
            reason = "this type does not mount block devices"
            raise RequestInvalid(argument="fstype", value=repr(fstype), reason=reason)
        flags = self.flags | (syscalls.MS_RDONLY if self._readonly else 0)
        data = (*filesystems.standing_options(fstype), *self.data)
        no_replay = filesystems.no_replay_options(fstype) if self._readonly else ()
        try:
            syscalls.mount(device.node, target.call, fstype, flags, ",".join(data))
        except OSError as error:
            # A dirty journal on a read-only device: ext4, XFS and btrfs all answer EROFS.
            if error.errno != errno.EROFS or not no_replay:
                raise self._refused(fstype, error) from error
            try:
                syscalls.mount(device.node, target.call, fstype, flags, ",".join((*data, *no_replay)))
            except OSError as again:
                raise self._refused(fstype, again) from again
            self.dirty = True

    def _refused(self, fstype: str, error: OSError) -> MountFailed:
        number = error.errno or 0
        hints = {
            errno.ENODEV: f"this kernel has no {fstype}: run `modprobe {fstype}`, or use `imagemount lab`",
            errno.EINVAL: f"the {fstype} on it is damaged, or an option is not one of its: see the kernel log (dmesg)",
            errno.EUCLEAN: f"the {fstype} on it is damaged: check the image with fsck",
            errno.EPERM: "run as root, or allow `sudo -n`; in a container, add CAP_SYS_ADMIN",
            errno.EIO: "the image is damaged or truncated: see the kernel log (dmesg)",
            errno.EROFS: "use mode='overlay', which replays the journal without touching the image",
        }
        place = self.partition.number if self.partition else None
        hint = hints.get(number, "see the kernel log (dmesg)")
        return MountFailed(
            image=self.image.name, partition=place, fstype=fstype, errno=number, reason=os.strerror(number), hint=hint
        )

    def _stage(self, reached: State) -> _Stage:
        return _Stage(self, reached)

    def _require(self, stage: str, state: State) -> None:
        if self.state is not state:
            raise StageError(stage=stage, state=self.state.value, needs=state.value)

    def _undo_stage(self, name: str, stage: State, below: State) -> None:
        self._require(name, stage)
        self._undo[stage].close(f"image {self.image.name!r} ({name})")
        self.state = below

    def _undo_after(self, error: BaseException) -> None:
        try:
            self.close()
        except TeardownError as failure:
            error.add_note(str(failure))


class _Stage:
    """Runs one stage: on success the state is reached, on failure the stage's own steps are undone."""

    def __init__(self, mount: Mount, reached: State) -> None:
        self._mount = mount
        self._reached = reached
        self._undo = mount._undo[reached]

    def __enter__(self) -> UndoStack:
        return self._undo

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._mount.state = self._reached
            return
        for line in self._undo.run():
            error.add_note(line)


def _not_mountable(found: Superblock | None, partition: Partition | None) -> tuple[str, str]:
    if found is None:
        where = "the partition" if partition else "the image"
        return f"{where} holds no file system that is known", "name it with fstype=, or choose another partition"
    if found.usage == "crypto":
        return f"it is encrypted ({found.type})", "open it with cryptsetup on attached_image(...) first"
    if found.type == "swap":
        return "it is swap space, which holds no files", "choose another partition"
    if found.usage == "raid":
        hint = "activate it on attached_image(...) first, with the tools of its own kind"
        return f"it is a member of a volume ({found.type})", hint
    return f"it holds {found.type} ({found.usage}), not a file system", "choose another partition"
