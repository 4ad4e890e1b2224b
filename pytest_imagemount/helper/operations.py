"""The few things the helper does: open, release, status, by way of the engine."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.image import identify
from ..engine.mount import Mount
from ..errors import DevicesBusy, RequestInvalid, TeardownError
from ..facts import DeviceFacts, MountFacts

if TYPE_CHECKING:
    from ..engine.workspace import Owner, Workspace
    from .protocol import Open


@dataclass(frozen=True, slots=True)
class Busy:
    """No device is free now; ``holders`` says in a line each who holds which."""

    holders: tuple[str, ...]


@dataclass(slots=True)
class _Held:
    mount: Mount
    test: str
    descriptors: list[int]


class Mounts:
    """Everything that one test process holds, by the number that the client gave it."""

    def __init__(self, workspace: Workspace, owner: Owner) -> None:
        self._workspace = workspace
        self._owner = owner
        self._held: dict[int, _Held] = {}

    def open(self, request: Open, descriptors: list[int]) -> MountFacts | DeviceFacts | Busy:
        """Attach, and mount unless only the device was asked for. ``descriptors`` are taken over on success.

        :raises ImageMountError: of every kind; nothing is left behind
        """
        if request.mount in self._held:
            raise RequestInvalid(argument="mount", value=str(request.mount), reason="this number is in use")
        if not descriptors or len(descriptors) > 2:
            raise RequestInvalid(argument="descriptors", value=str(len(descriptors)), reason="one image, one folder")
        mount = self._prepare(request, descriptors)
        try:
            mount.open(attach_only=request.attach_only)
        except DevicesBusy as busy:
            return Busy(busy.holders)
        self._held[request.mount] = _Held(mount, request.test, list(descriptors))
        descriptors.clear()
        return _device_facts(request, mount) if request.attach_only else _mount_facts(request, mount)

    def release(self, number: int) -> None:
        """Undo mount ``number``; what failed stays held, and is tried again by the next release and at the end.

        :raises TeardownError: naming each step that failed
        """
        held = self._held.get(number)
        if held is None:
            return
        held.mount.close()
        for descriptor in held.descriptors:
            os.close(descriptor)
        del self._held[number]

    def status(self) -> list[dict[str, Any]]:
        """What is held, as JSON values."""
        return [
            {"mount": number, "test": held.test, "image": held.mount.image.name, "state": held.mount.state.value}
            for number, held in self._held.items()
        ]

    def close(self) -> list[str]:
        """Undo everything, the latest first; returns one line for each step that failed."""
        failures: list[str] = []
        for number in reversed(list(self._held)):
            try:
                self.release(number)
            except TeardownError as error:
                failures += error.failures
        return failures

    def _prepare(self, request: Open, descriptors: list[int]) -> Mount:
        image = identify(descriptors[0], request.name, request.format)
        return Mount.for_format(
            image,
            self._workspace,
            partition=request.partition,
            mode=request.mode,
            backend=request.backend,
            fstype=request.fstype,
            options=request.options,
            mountpoint=_mountpoint(descriptors[1]) if len(descriptors) == 2 else None,
            whole=request.attach_only,
            partition_nodes=request.partition_nodes,
            owner=replace(self._owner, test=request.test),
        )


def _mountpoint(fd: int) -> Path:
    path = Path(f"/proc/self/fd/{fd}").readlink()
    if not stat.S_ISDIR(os.fstat(fd).st_mode):
        raise RequestInvalid(argument="mountpoint", value=str(path), reason="not a folder")
    return path


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
        mode=mount.mode,
        backend=mount.backend,
        mountpoint=mount.mountpoint,
    )


def _device_facts(request: Open, mount: Mount) -> DeviceFacts:
    assert mount.device is not None
    assert mount.window is not None
    return DeviceFacts(
        path=Path(mount.device.path),
        source=Path(request.source),
        format=mount.image.format,
        partition=mount.partition.number if mount.partition else None,
        size=mount.window.size,
        mode=mount.mode,
        backend=mount.backend,
        partitions=tuple(mount.nodes.items()),
    )
