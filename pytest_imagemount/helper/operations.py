"""The few things the helper does: open, release, keep, status, by way of the engine."""

from __future__ import annotations

import os
import stat
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.image import identify
from ..engine.image_lock import lock_image
from ..engine.mount import Mount
from ..engine.processes import ProcessId
from ..engine.stages import State
from ..engine.target import Target
from ..engine.undo import deadline as shared_deadline
from ..engine.wanted import Wanted
from ..errors import DevicesBusy, FilesystemLocked, ImageInvalid, ImageLocked, RequestInvalid, TeardownError
from ..facts import DeviceFacts, MountFacts
from .descriptors import Carried, require_different, require_image, require_mountpoint
from .journal import Journal
from .messages import close_all
from .record import Record
from .who import who_are

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..engine.image import Image
    from ..engine.workspace import Owner, Workspace
    from .protocol import Open

CLOSE_TIMEOUT = 4.0
"""Seconds for the undo of everything that a process holds: xdist gives a worker 5."""


@dataclass(frozen=True, slots=True)
class Busy:
    """What is needed, a ``"device"``, the ``"image"`` or the ``"file system"``, is others' now.

    ``holders`` has a line for each of them; ``ahead`` is how many are to be served first.
    """

    what: str
    holders: tuple[str, ...]
    ahead: int = 0


@dataclass(slots=True)
class _Held:
    mount: Mount
    record: Record
    descriptors: list[int]


class Mounts:
    """Everything that one test process holds, by the number that the client gave it.

    What dead helpers of the same user left is reclaimed before the first mount.
    """

    def __init__(self, workspace: Workspace, owner: Owner) -> None:
        self._workspace = workspace
        self._owner = owner
        self._held: dict[int, _Held] = {}
        self._journal = Journal(workspace.held.fd)
        self._helper_process, self._owner_process = ProcessId.of(os.getpid()), ProcessId.of(owner.pid)
        self._reclaimed = False

    @property
    def kept(self) -> bool:
        """Whether a mount is held that :meth:`keep` was asked for."""
        return any(held.record.kept for held in self._held.values())

    def open(self, request: Open, descriptors: list[int]) -> MountFacts | DeviceFacts | Busy:
        """Attach, and mount unless only the device was asked for. ``descriptors`` are taken over on success.

        :raises ImageMountError: of every kind; nothing is left behind, or what is left is undone by a later release
        """
        if request.mount in self._held:
            raise RequestInvalid(argument="mount", value=str(request.mount), reason="this number is in use")
        try:
            if request.under is not None:
                mount = self._prepare_below(request, descriptors)
            else:
                mount = self._prepare(request, Carried.of(request.carries, descriptors))
        except ImageLocked as error:
            return _busy_image(error)
        self._reclaim_once()
        held = _Held(mount, self._record(request), [])
        self._journal.write(held.record)
        try:
            mount.open(attach_only=request.attach_only)
        except BaseException as error:
            if mount.state is State.NEW:
                self._journal.remove(request.mount)
            else:  # the undo failed as well: a release tries it again
                self._hold(request.mount, held, descriptors)
            if isinstance(error, DevicesBusy):
                return Busy("device", error.holders, error.ahead)
            if isinstance(error, ImageLocked):
                return _busy_image(error)
            if isinstance(error, FilesystemLocked):
                return Busy("file system", who_are(error.pids))
            raise
        self._hold(request.mount, held, descriptors)
        held.record = self._known(held)
        self._journal.write(held.record)
        return _device_facts(request, mount) if request.attach_only else _mount_facts(request, mount)

    def release(self, number: int) -> None:
        """Undo mount ``number``; what failed stays held, and is tried again by the next release and at the end.

        :raises TeardownError: naming each step that failed
        """
        held = self._held.get(number)
        if held is None:
            self._workspace.give_up_waiting(number)
            return
        for below in [other for other, it in self._held.items() if it.mount.base is held.mount]:
            self.release(below)
        with shared_deadline(time.monotonic() + CLOSE_TIMEOUT):
            held.mount.close()
        self._journal.remove(number)
        del self._held[number]
        close_all(held.descriptors)

    def keep(self, number: int) -> None:
        """Do not undo mount ``number`` at the end: see :func:`.keeping.wait_for_end_of_kept`.

        :raises RequestInvalid: there is no such mount
        """
        held = self._find(number)
        held.record = replace(held.record, kept=True)
        self._journal.write(held.record)

    def root_of(self, number: int) -> int:
        """An O_PATH descriptor, the caller's to close, of the root of the file system that is mount ``number``.

        :raises RequestInvalid: there is no such mount, or it is only a device
        :raises OSError: it was unmounted by somebody else
        """
        mount = self._find(number).mount
        if mount.target is None or mount.device is None or mount.state is not State.MOUNTED:
            raise RequestInvalid(argument="mount", value=str(number), reason="no file system is mounted by it")
        return mount.target.open_root(mount.device.path)

    def below(self, number: int) -> dict[int, str]:
        """What is mounted below mount ``number``: the numbers, and where, as ``boot/efi``; the outer ones first."""
        base = self._find(number).mount
        return {
            other: os.path.relpath(held.mount.target.path, base.target.path)
            for other, held in self._held.items()
            if held.mount.base is base and held.mount.target is not None and base.target is not None
        }

    def status(self) -> list[dict[str, Any]]:
        """What is held, as JSON values."""
        return [
            {"mount": number, "test": held.record.test, "image": held.mount.image.name, "state": held.mount.state.value}
            for number, held in self._held.items()
        ]

    def close(self, deadline: float | None = None, *, also_kept: bool = False) -> list[str]:
        """Undo everything that is not kept, the latest first; returns one line for each step that failed.

        It may be called again for what failed.

        :param deadline: (time.monotonic) shared by all steps; None is 4 s from now
        :param also_kept: undo what is kept too
        """
        failures: list[str] = []
        with shared_deadline(time.monotonic() + CLOSE_TIMEOUT if deadline is None else deadline):
            for number, held in reversed(list(self._held.items())):
                if held.record.kept and not also_kept:
                    continue
                try:
                    self.release(number)
                except TeardownError as error:
                    failures += error.failures
                except OSError as error:  # of the journal: the others have their turn all the same
                    failures.append(f"mount {number}: {error}")
        if not self._held:
            self._journal.close()
        return failures

    def cut_off(self) -> None:
        """Disconnect every device whose storage daemon has died. Its mount is undone as always."""
        for held in self._held.values():
            if held.mount.device is not None:
                held.mount.cut_off()

    def drop_unmounted(self) -> None:
        """Release what is kept and was unmounted, or detached, by hand."""
        for number, held in list(self._held.items()):
            mount = held.mount
            assert mount.device is not None
            used = mount.device.attached if mount.target is None else mount.target.shows(mount.device.path)
            if held.record.kept and not used:
                self.release(number)

    def _hold(self, number: int, held: _Held, descriptors: list[int]) -> None:
        held.descriptors = list(descriptors)
        descriptors.clear()
        self._held[number] = held

    def _find(self, number: int) -> _Held:
        if number not in self._held:
            raise RequestInvalid(argument="mount", value=str(number), reason="nothing is held under this number")
        return self._held[number]

    def _reclaim_once(self) -> None:
        if self._reclaimed:
            return
        self._reclaimed = True
        from .reclaim import reclaim_for

        with shared_deadline(time.monotonic() + CLOSE_TIMEOUT):
            report = reclaim_for(self._workspace.uid, dry_run=False)
        for item in report.left:
            print(f"left by a run before this one: {item}", file=sys.stderr)

    def layout(self, number: int, architecture: str | None) -> dict[str, Any]:
        """What :func:`.layout.layout_of` says of mount ``number``.

        :raises RequestInvalid: there is no such mount
        """
        from .layout import layout_of

        return layout_of(self._find(number).mount, architecture)

    def _prepare_below(self, request: Open, descriptors: list[int]) -> Mount:
        """A further mount of an image that is mounted already, inside it. The folder joins ``descriptors``."""
        from ..confined import open_below

        assert request.under is not None
        base = self._find(request.under).mount
        if request.mode != base.wanted.mode:
            reason = f"the mount that this one is below has mode {base.wanted.mode!r}, and so have all of its image"
            raise RequestInvalid(argument="mode", value=repr(request.mode), reason=reason)
        keys = [fd for role, fd in zip(request.carries, descriptors, strict=True) if role == "key"]
        if len(keys) != len(descriptors):
            reason = "a mount below another carries its key only"
            raise RequestInvalid(argument="carries", value=", ".join(request.carries), reason=reason)
        root = self.root_of(request.under)
        try:
            folder = open_below(root, request.at, os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            reason = f"the image has no folder there to mount at: {error.strerror}"
            raise RequestInvalid(argument="at", value=repr(request.at), reason=reason) from None
        finally:
            os.close(root)
        descriptors.append(folder)
        return base.also(
            self._wanted(request),
            mountpoint=Target.held(folder),
            owner=replace(self._owner, test=request.test),
            number=request.mount,
            key=keys[0] if keys else -1,
        )

    def _prepare(self, request: Open, carried: Carried) -> Mount:
        require_image(carried.image, request.name, request.mode)
        for path, descriptor in carried.files:
            require_image(descriptor, path, "ro")
        uid = self._workspace.uid
        target = None if carried.mountpoint is None else require_mountpoint(carried.mountpoint, uid)
        image = self._identify(request, request.name, carried.image, carried.files)
        for name, descriptor in carried.members:
            require_image(descriptor, name, request.mode)
        require_different([(request.name, carried.image), *carried.members])
        members = [self._identify(request, name, descriptor) for name, descriptor in carried.members]
        return Mount.for_format(
            image,
            self._workspace,
            self._wanted(request),
            backend=request.backend,
            mountpoint=target,
            owner=replace(self._owner, test=request.test),
            number=request.mount,
            members=members,
            key=-1 if carried.key is None else carried.key,
        )

    def _wanted(self, request: Open) -> Wanted:
        return Wanted(
            partition=request.partition,
            mode=request.mode,
            fstype=request.fstype,
            options=request.options,
            whole=request.attach_only,
            partition_nodes=request.partition_nodes,
            volume=request.volume,
            subvolume=request.subvolume,
            verity=request.verity,
            architecture=request.architecture,
            overlay_size=request.overlay_size,
        )

    def _identify(self, request: Open, name: str, fd: int, files: Sequence[tuple[str, int]] = ()) -> Image:
        def find() -> Image:
            return identify(fd, name, request.format, files=files)

        def find_undisturbed() -> Image:
            try:
                return find()
            except ImageInvalid:
                if not stat.S_ISREG(os.fstat(fd).st_mode):  # to open a pipe anew would wait for a writer
                    raise
                # An image that somebody writes to now may look broken for the moment.
                lock = lock_image(fd, name, exclusive=False)
                try:
                    return find()
                finally:
                    lock.release()

        return self._workspace.findings.identify(fd, request.format, request.mode, find_undisturbed, name=name)

    def _record(self, request: Open) -> Record:
        return Record(
            token=self._workspace.token,
            number=request.mount,
            helper=self._helper_process,
            owner=self._owner_process,
            worker=self._owner.worker,
            test=request.test,
            image=request.source,
            partition=request.partition,
            mode=request.mode,
            since=time.time(),
        )

    def _known(self, held: _Held) -> Record:
        mount = held.mount
        assert mount.device is not None
        daemon = self._workspace.daemon_pid if mount.backend != "loop" else None
        return replace(
            held.record,
            partition=mount.part,
            format=mount.image.format,
            backend=mount.backend,
            device=mount.device.path,
            diskseq=getattr(mount.device, "diskseq", None) or "",
            mountpoint=str(mount.mountpoint or ""),
            daemon=None if daemon is None else ProcessId.of(daemon),
        )


def _busy_image(error: ImageLocked) -> Busy:
    writer = ("a writer who waits for them",) if error.writer_waits else ()
    return Busy("image", (*who_are(error.pids), *writer))


def _mount_facts(request: Open, mount: Mount) -> MountFacts:
    assert mount.device is not None
    assert mount.mountpoint is not None
    found = mount.superblock
    return MountFacts(
        source=Path(request.source),
        format=mount.image.format,
        partition=mount.partition.number if mount.partition else None,
        device=mount.device.path,
        fstype=mount.fstype,
        label=found.label if found else None,
        uuid=found.uuid if found else None,
        mode=mount.wanted.mode,
        backend=mount.backend,
        mountpoint=mount.mountpoint,
        dirty=mount.dirty,
        volume=None if mount.volume is None else str(mount.volume),
    )


def _device_facts(request: Open, mount: Mount) -> DeviceFacts:
    assert mount.device is not None
    return DeviceFacts(
        path=Path(mount.device.path),
        source=Path(request.source),
        format=mount.image.format,
        partition=mount.partition.number if mount.partition else None,
        size=mount.size,
        mode=mount.wanted.mode,
        backend=mount.backend,
        partitions=tuple(mount.nodes.items()),
        volume=None if mount.volume is None else str(mount.volume),
    )
