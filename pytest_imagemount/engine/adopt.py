"""Adopting a device that is attached already, whoever attached it, to take it down stage by stage."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import DeviceFailed, ImageMountError, StageError, TeardownError
from . import block_devices, loop
from .stages import State
from .target import Target
from .undo import UndoStack, wait_until
from .unmounting import unmount
from .volumes import dm

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from .block_devices import BlockDeviceFacts

_DETACH_TIMEOUT = 5.0


class AdoptedMount:
    """The undo half of :class:`~.mount.Mount`, with the state read from the kernel.

    ``device`` is what was named, ``disk`` the whole device below it, ``partition`` its number or None,
    ``mountpoints`` where it is mounted. Adopting a whole disk adopts everything that stands on it; adopting a
    partition leaves its siblings alone, and then :meth:`detach` refuses while one of them is in use.
    """

    def __init__(self, device: BlockDeviceFacts) -> None:
        self.device = device
        self.disk = block_devices.parent(device)
        self.partition = device.partition
        self._require_attached()
        self._stack = [device] if device.kind != "disk" else [*block_devices.above(device), device]
        self.state = State.MOUNTED if self.mountpoints else State.MAPPED

    @property
    def mountpoints(self) -> list[Path]:
        """Every place where what was adopted is mounted, the latest mount first."""
        return [target for entry in self._stack for target in entry.mountpoints]

    def unmount(self) -> None:
        """Unmount every mount point."""
        self._require("unmount", State.MOUNTED)
        undo = UndoStack()
        for target in reversed(self.mountpoints):
            undo.push(f"unmount {target}", lambda target=target: unmount(Target.at(target)))  # type: ignore[misc]
        undo.close(f"unmount of /dev/{self.device.name}")
        self.state = State.MAPPED

    def unmap(self) -> None:
        """Remove device-mapper mappings; the kernel's own partition nodes go with the disk."""
        self._require("unmap", State.MAPPED)
        undo = UndoStack()
        for entry in reversed(self._stack):
            if entry.mapping is not None:
                undo.push(f"remove mapping {entry.mapping}", lambda name=entry.mapping: dm.remove(name))  # type: ignore[misc]
        undo.close(f"unmap of /dev/{self.device.name}")
        self.state = State.ATTACHED

    def detach(self) -> None:
        """Detach the disk, and see it gone from the kernel's view.

        :raises DeviceFailed: something else stands on it, or it did not go
        """
        self._require("detach", State.ATTACHED)
        path = f"/dev/{self.disk.name}"
        if users := self._other_users():
            hint = "take those down first"
            raise DeviceFailed(image="", device=path, reason=f"still in use by {', '.join(users)}", hint=hint)
        _disconnect(self.disk)
        if not wait_until(lambda: not is_attached(self.disk), _DETACH_TIMEOUT):
            hint = f"a program has it open: see fuser -v {path}"
            raise DeviceFailed(image="", device=path, reason="it did not detach", hint=hint)
        self.state = State.NEW

    def close(self) -> None:
        """Every stage that is left. A failed one does not keep the next from being tried.

        :raises TeardownError: naming each that failed
        """
        failures = []
        for name, state, after in (
            ("unmount", State.MOUNTED, State.MAPPED),
            ("unmap", State.MAPPED, State.ATTACHED),
            ("detach", State.ATTACHED, State.NEW),
        ):
            if self.state is state:
                try:
                    getattr(self, name)()
                except (OSError, ImageMountError) as error:
                    failures.append(f"{name}: {error}")
                    self.state = after
        if failures:
            self.state = State.MOUNTED if self.mountpoints else State.MAPPED
            raise TeardownError(subject=f"/dev/{self.device.name}", failures=failures)

    def _require(self, stage: str, state: State) -> None:
        if self.state is not state:
            raise StageError(stage=stage, state=self.state.value, needs=state.value)

    def _require_attached(self) -> None:
        if not re.fullmatch(r"(loop|nbd)\d+", self.disk.name):
            hint = "only loop and NBD devices are images"
            reason = f"it stands on {self.disk.name}"
            raise DeviceFailed(image="", device=f"/dev/{self.device.name}", reason=reason, hint=hint)
        if not is_attached(self.disk):
            hint = "there is nothing to take down"
            raise DeviceFailed(image="", device=f"/dev/{self.disk.name}", reason="nothing is attached", hint=hint)

    def _other_users(self) -> list[str]:
        stack = [*block_devices.above(self.disk), self.disk]
        users = [f"mapping {entry.mapping}" for entry in stack if entry.mapping]
        return users + [str(target) for entry in stack for target in entry.mountpoints]


def adopt(device: str | os.PathLike[str]) -> AdoptedMount:
    """The adopted state of ``device``: a whole device, a partition node or a device-mapper mapping of one.

    :raises DeviceFailed: it is no block device, stands on something else than loop or NBD, or nothing is attached
    """
    return AdoptedMount(block_devices.lookup(device))


def is_attached(disk: BlockDeviceFacts) -> bool:
    """Whether loop or NBD device ``disk`` has something behind it."""
    marker = "loop" if disk.name.startswith("loop") else "pid"
    return (disk.folder / marker).exists()


def _disconnect(disk: BlockDeviceFacts) -> None:
    if disk.name.startswith("loop"):
        loop.clear(f"/dev/{disk.name}")
    else:
        from .nbd import attach as nbd

        nbd.disconnect(int(disk.name.removeprefix("nbd")))
