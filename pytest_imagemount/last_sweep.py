"""What a run leaves: undone as far as can be, and compared with what the kernel still shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import client
from .engine import loop
from .engine.mountinfo import mounts
from .errors import ImageMountError
from .pending import LIVE
from .signals import Deferred

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_REMEDY = "    remove it: imagemount clean"


@dataclass(frozen=True, slots=True)
class Swept:
    """A text each for what was left, and for what was kept on purpose."""

    left: list[str]
    kept: list[str]


def sweep(*, blame: bool) -> Swept:
    """End this process's helper, which undoes everything that is not kept.

    :param blame: count what is open in a scope that has not ended: all finalizers had their chance
    """
    with Deferred():
        helper, devices = LIVE.helper, sorted(LIVE.devices)
        open_still = [pending for pending in LIVE.all() if blame and not pending.scope.over]
        left = [_left_open(pending.name, pending.scope.test) for pending in open_still]
        try:
            client.close_current_client()
        except ImageMountError as error:
            left.append(f"{error}\n{_REMEDY}")
        kept = LIVE.clear()
        # A helper that keeps something lives on, and answers for all of it.
        if helper is not None and not kept:
            known = "\n".join(left)
            left += [f"{line}\n{_REMEDY}" for thing, line in still_there(helper, devices) if thing not in known]
    return Swept(left, kept)


def still_there(helper: int, devices: Iterable[str]) -> Iterator[tuple[str, str]]:
    """What the kernel shows of the helper with this pid: mount point or device, and a line that tells of it.

    :param devices: the devices that it had. Only these are looked at, and only while they are attached: to ask a loop
        device for its name is to open it, which would hold up another worker's detaching. Only root may ask.
    """
    for entry in mounts():
        place = str(entry.target)
        if "/pytest-imagemount" in place and any(part.startswith(f"{helper}-") for part in entry.target.parts):
            yield place, f"{entry.source} ({entry.fstype}) is still mounted at {place}"
    for device in devices:
        name = Path(device).name
        if name.startswith("loop") and Path(f"/sys/block/{name}/loop").is_dir():
            tag = loop.tag_of(int(name.removeprefix("loop"))) or ""
            if tag.startswith(f"{loop.TAG}{helper}-"):
                yield device, f"{device} is still attached ({tag})"


def _left_open(name: str, by: str) -> str:
    return (
        f"image {name!r} was still open when the last finalizer had run; opened by {by}\n"
        "    open it in a with statement, or by a fixture (mounted_image and its like)"
    )
