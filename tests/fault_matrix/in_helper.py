"""Faults in a helper that was started for them: it stops at a place, to be struck there, or a stage of it fails.

The helper's own code is not changed for it: these functions are put around its own when it starts. The client starts
such a helper by a command of its own (:func:`argv_with_faults`).
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_imagemount.engine import mount as mount_module
from pytest_imagemount.engine.fuse_mount import FuseMount
from pytest_imagemount.engine.loop import LoopDevice
from pytest_imagemount.engine.loop_mount import LoopMount
from pytest_imagemount.engine.mount import Mount
from pytest_imagemount.engine.nbd.attach import NbdDevice
from pytest_imagemount.engine.nbd_mount import NbdMount
from pytest_imagemount.engine.stages import State
from pytest_imagemount.helper_start import helper_argv

from .script import Script, tell, tell_now, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

_DRIVERS = (LoopMount, FuseMount, NbdMount)
_SECOND = 2  # the number that the client gives to the second mount
_STAGES = {
    "unmount": ("mount", State.MOUNTED),
    "unmap": ("map", State.MAPPED),
    "detach": ("attach", State.ATTACHED),
}
_ARM = (
    "import sys; sys.path.insert(0, sys.argv[1]); sys.path.append({root!r}); "
    "from tests.fault_matrix.in_helper import arm; arm({folder!r}); "
)


def argv_with_faults(script: Script, path: Path) -> list[str]:
    """As helper_argv, for a helper with the faults of ``script``: its own program comes after what arms them."""
    argv = helper_argv(path)
    program = argv.index("-c") + 1
    argv[program] = _ARM.format(root=str(Path(__file__).parents[2]), folder=script.folder) + argv[program]
    return argv


def arm(folder: str) -> None:
    """Put the faults of the script in ``folder`` in place; called before the helper's own main."""
    script = Script.read(Path(folder))
    if script.pause:
        _PAUSES[script.pause](Path(folder))
    if script.fail in _STAGES:
        _fail_undo(Path(folder), *_STAGES[script.fail], seconds=script.fail_for)
    elif script.fail == "mount":
        _fail_mount(Path(folder))
    elif script.fail:
        _fail_stage(Path(folder), f"_{script.fail}")


def _number(mount: Mount) -> int:
    return int(mount.tag.rpartition(":")[2])


def _around(owner: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace ``owner.name`` by what ``wrap`` makes of it; it has to be there."""
    setattr(owner, name, wrap(getattr(owner, name)))


# Where the helper stops.


def _pause(folder: Path) -> None:
    tell(folder, "reached")
    wait_for(folder, "go", 30)


def _pause_before_device(folder: Path) -> None:
    """The image is open, in the storage daemon too where there is one; there is no device."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def map_stage(self: Mount) -> None:
            if _number(self) == _SECOND:
                _pause(folder)
            original(self)

        return map_stage

    _around(Mount, "map", wrap)


def _pause_before_mount(folder: Path) -> None:
    """The device is there, and not mounted."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def mount_stage(self: Mount) -> None:
            if _number(self) == _SECOND:
                _pause(folder)
            original(self)

        return mount_stage

    _around(Mount, "mount", wrap)


def _pause_after_mount(folder: Path) -> None:
    """mount(2) has succeeded, and nothing has been noted of it."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def mount(self: Mount, *arguments: Any) -> None:
            original(self, *arguments)
            if _number(self) == _SECOND:
                _pause(folder)

        return mount

    _around(Mount, "_mount", wrap)


def _pause_in_teardown(folder: Path) -> None:
    """The second mount is unmounted, and its device is still there, or just about to go."""

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def unmount_from(*arguments: Any) -> None:
            original(*arguments)
            _pause(folder)

        return unmount_from

    _around(mount_module, "unmount_from", wrap)


_PAUSES: dict[str, Callable[[Path], None]] = {
    "before device": _pause_before_device,
    "before mount": _pause_before_mount,
    "after mount": _pause_after_mount,
    "teardown": _pause_in_teardown,
}

# How stages fail: the second mount at the start of the stage, the third at its end.


def _injected() -> OSError:
    return OSError(errno.EIO, f"injected: {os.strerror(errno.EIO)}")


def _fail_stage(folder: Path, name: str) -> None:
    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def stage(self: Mount, *arguments: Any) -> Any:
            if _number(self) == _SECOND:
                tell_now(folder, "event")
                raise _injected()
            result = original(self, *arguments)
            if _number(self) == _SECOND + 1:
                raise _injected()
            return result

        return stage

    for driver in _DRIVERS:
        _around(driver, name, wrap)


def _fail_mount(folder: Path) -> None:
    """Fail mount(2), and then the step after it, in which the device is let go of."""
    failing: list[bool] = []

    def wrap_mount(original: Callable[..., Any]) -> Callable[..., Any]:
        def mount(self: Mount, *arguments: Any) -> None:
            if _number(self) == _SECOND:
                tell_now(folder, "event")
                raise _injected()
            original(self, *arguments)
            if _number(self) == _SECOND + 1:
                failing.append(True)

        return mount

    def wrap_arm(original: Callable[..., Any]) -> Callable[..., Any]:
        def arm_device(self: Any) -> None:
            if failing:
                failing.clear()
                raise _injected()
            original(self)

        return arm_device

    _around(Mount, "_mount", wrap_mount)
    for device in (LoopDevice, NbdDevice):
        _around(device, "arm", wrap_arm)


def _fail_undo(folder: Path, name: str, reached: State, *, seconds: float) -> None:
    """Make every undo step of a stage of the second mount fail: the first time, or for some seconds."""
    since: list[float] = []

    def failing(step: Callable[[], object]) -> Callable[[], object]:
        tried: list[bool] = []

        def fail_or(step: Callable[[], object] = step) -> object:
            tell_now(folder, "event")
            since.append(time.monotonic())
            if (time.monotonic() - since[0] < seconds) if seconds else not tried:
                tried.append(True)
                raise _injected()
            return step()

        return fail_or

    def wrap(original: Callable[..., Any]) -> Callable[..., Any]:
        def stage(self: Mount) -> None:
            original(self)
            if _number(self) == _SECOND:
                stack = self._undo[reached]
                stack._steps = [(text, failing(step)) for text, step in stack._steps]

        return stage

    _around(Mount, name, wrap)
