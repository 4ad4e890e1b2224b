"""What is asked for, and what a kind of file system can hold: the seam between the factory and each mkfs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import RequestInvalid
from ..content import Device, Directory, Entry, File, Hardlink, Symlink, Tree, default_time

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Volume:
    """One file system to make. ``size`` is in bytes; None leaves it to a kind that makes its own size."""

    fstype: str
    tree: Tree
    size: int | None
    label: str
    uuid: str
    sector_size: int
    options: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        """Variables with which programs give equal output for equal input, where they know them."""
        time = str(default_time())
        return {"SOURCE_DATE_EPOCH": time, "E2FSPROGS_FAKE_TIME": time, "DETERMINISTIC_SEED": "1", "TZ": "UTC"}


@dataclass(frozen=True, slots=True)
class FilesystemKind:
    """How one type of file system is made.

    ``make(volume, target, scratch)`` writes it to the file ``target``, which has ``volume.size`` zero bytes, or does
    not exist when ``sized`` is false; ``scratch`` is an empty folder for its own use. ``default_size(tree)`` is in
    bytes. ``lacks`` names what it cannot hold, of: owners, links, hardlinks, devices, xattrs, uuid.
    """

    make: Callable[[Volume, Path, Path], None]
    default_size: Callable[[Tree], int]
    minimum: int
    label_limit: int
    lacks: frozenset[str] = frozenset()
    sized: bool = True


def check_content(volume: Volume, kind: FilesystemKind) -> None:
    """Return when a file system of ``kind`` can hold the content of ``volume``.

    :raises RequestInvalid: it cannot; names the first path
    """
    for path, entry in {".": volume.tree.root, **volume.tree.entries}.items():
        reason = _cannot_hold(entry, kind.lacks, volume.tree.explicit)
        if reason:
            raise RequestInvalid(
                argument="content", value=repr(path), reason=f"{reason}, which {volume.fstype} images made here lack"
            )


def _cannot_hold(entry: Entry, lacks: frozenset[str], explicit: bool) -> str | None:
    if isinstance(entry, Hardlink):
        return "is a hard link" if "hardlinks" in lacks else None
    if isinstance(entry, Symlink) and "links" in lacks:
        return "is a symbolic link"
    if isinstance(entry, Device) and "devices" in lacks:
        return "is a device or a named pipe"
    if not explicit:
        return None
    if isinstance(entry, File) and entry.xattrs and "xattrs" in lacks:
        return "has extended attributes"
    if "owners" in lacks and (entry.uid, entry.gid) != (0, 0):
        return f"has the owner {entry.uid}:{entry.gid}"
    if "owners" in lacks and entry.mode != (Directory().mode if isinstance(entry, Directory) else File().mode):
        return f"has the mode {entry.mode:#o}"
    return None
