"""Who keeps a file system busy: found in /proc, to be named in the failure text."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .mountinfo import mounts

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Use:
    """One process's use of a file system: ``how`` is cwd, root, exe, or the descriptor's number."""

    pid: int
    command: str
    how: str
    file: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.command}) has {self.how} {self.file}"


def users_of(mountpoint: Path) -> list[str]:
    """One line for each thing that keeps the file system at ``mountpoint`` busy, as far as this user may see."""
    device = os.lstat(mountpoint).st_dev
    lines = [f"{mount.target} is mounted inside it" for mount in mounts() if mountpoint in mount.target.parents]
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            lines += [str(use) for use in _uses(Path(entry.path), device)]
    return lines


def _uses(process: Path, device: int) -> Iterator[Use]:
    links = [(name, process / name) for name in ("cwd", "root", "exe")]
    with suppress(OSError):  # it has ended, or belongs to another user
        links += [(f"descriptor {entry.name} on", Path(entry.path)) for entry in os.scandir(process / "fd")]
    for how, link in links:
        try:
            if link.stat().st_dev == device:
                yield Use(int(process.name), _command(process), how, str(link.readlink()))
        except OSError:
            continue


def _command(process: Path) -> str:
    try:
        argv = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    return b" ".join(argv).decode(errors="replace").strip()[:120] or "?"
