"""Mappings and arrays that a dead helper left: each bears the helper's token and the number of its mount in its name.

A mapping is left only by a helper that died between making it and opening it; from then on the kernel removes it at its
last close. An array runs until somebody stops it.
"""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..engine.undo import wait_until
from ..engine.volumes import dm, raid
from ..errors import ImageMountError
from .leftovers import OurDevice

if TYPE_CHECKING:
    from ..engine.mountinfo import MountEntry

_TIMEOUT = 2.0
_NAME = re.compile(rf"(?:{re.escape(dm.PREFIX)}|{re.escape(raid.PREFIX)})(\d+-[0-9a-f]+)-(\d+)-(\d+)(_dif)?")


def volumes_of(token: str) -> list[OurDevice]:
    """The mappings and arrays of the helper with that token; what lies on others comes before them."""
    found = []
    for name in (*dm.names(), *raid.arrays()):
        match = _NAME.fullmatch(name)
        if match is not None and match[1] == token:
            # The layers of a mount are counted from the lowest; NAME_dif is below NAME.
            found.append((int(match[3]), not match[4], OurDevice(_kernel_name(name), int(match[2]), name)))
    return [device for *_, device in sorted(found, key=lambda one: one[:2], reverse=True)]


def is_volume(device: OurDevice) -> bool:
    """Whether it is a mapping or an array."""
    return device.mark is not None and _NAME.fullmatch(device.mark) is not None


def volume_under(entry: MountEntry) -> str | None:
    """The kernel's name of the mapping or array of some helper that the file system is on; None where it is on none."""
    folder = Path("/sys/dev/block") / entry.device
    if not folder.exists():  # btrfs shows a device number of its own invention
        folder = Path("/sys/class/block") / Path(entry.source).name
    try:
        name = folder.resolve().name
        called = (folder / "dm/name").read_text().strip() if name.startswith("dm-") else name
    except OSError:
        return None
    return name if _NAME.fullmatch(called) else None


def take_down(device: OurDevice) -> None:
    """Remove the mapping, or stop the array. Gone already is fine.

    :raises ImageMountError: it is in use
    """
    name = device.mark
    assert name is not None
    if name.startswith(raid.PREFIX):
        raid.stop(name)
        return

    def removed() -> bool:
        try:
            dm.remove(name)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        return True

    if not wait_until(removed, _TIMEOUT):
        raise ImageMountError(f"it is in use: see fuser -vm /dev/{device.name}")


def _kernel_name(name: str) -> str:
    if name.startswith(raid.PREFIX):
        return name
    for entry in Path("/sys/block").glob("dm-*/dm/name"):
        if entry.read_text().strip() == name:
            return entry.parents[1].name
    return name
