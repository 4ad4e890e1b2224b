"""Ctrl-C before every line of the way of a real mount, there and back: nothing stays, and the next one works."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.config import Settings
from pytest_imagemount.last_sweep import still_there
from pytest_imagemount.pending import LIVE
from pytest_imagemount.session import MountSession
from tests.interruptions import interrupted, press_ctrl_c, raise_anyway

if TYPE_CHECKING:
    from collections.abc import Callable

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs")


@pytest.mark.parametrize("act", [press_ctrl_c, raise_anyway])
def test_an_interrupt_at_any_line_leaves_nothing_mounted(image_factory: ImageBuilder, act: Callable[[], None]) -> None:
    disk = image_factory(fstype="ext4", content={"f": "x"})
    # What an exception makes these drop, where nothing is deferred, is a descriptor that keeps the mount busy.
    leave_out = () if act is press_ctrl_c else ("signals.py", "image_root.py", "syscalls.py")
    with MountSession(Settings()) as warm:
        warm.mount(disk).__enter__()  # starts the helper: what it imports is not of interest here
        helper = LIVE.helper
        assert helper is not None
        assert len(list(still_there(helper, LIVE.devices))) == 2  # a mount and a loop device
    for at in range(1, 10_000):
        scope = MountSession(Settings(), guarded=True)
        try:
            with interrupted(at, act, *leave_out) as interruption:
                with scope.mount(disk) as image:
                    assert image.mounted
                scope.close()
        except KeyboardInterrupt:
            pass
        scope.close()
        assert list(still_there(helper, LIVE.devices)) == [], interruption.place
        assert LIVE.all() == [], interruption.place
        if not interruption.fired:
            break
    assert at > 200
    with MountSession(Settings()) as scope:
        assert (scope.mount(disk).__enter__() / "f").read_text() == "x"
