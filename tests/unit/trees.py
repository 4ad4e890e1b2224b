"""Folders that stand for mounted images, so that no privilege is needed."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_imagemount.facts import MountFacts
from pytest_imagemount.mounted_image import MountedImage


def facts_of(folder: Path, **others: Any) -> MountFacts:
    """The facts of an image that is mounted at ``folder``; ``others`` are those that matter."""
    facts = MountFacts(
        source=Path("/images/disk.raw"),
        format="raw",
        partition=None,
        device="/dev/loop3",
        fstype="ext4",
        label=None,
        uuid=None,
        mode="rw",
        backend="loop",
        mountpoint=folder,
    )
    return replace(facts, **others)


def mounted(folder: Path, name: str = "disk.raw", partition: int | None = 2) -> MountedImage:
    """The folder as a mounted image."""
    return MountedImage(facts_of(folder, source=Path("/images") / name, partition=partition), lambda: None)


def small_tree(folder: Path) -> Path:
    """A new folder with something of every kind that a plain user can make."""
    (folder / "etc").mkdir(parents=True)
    (folder / "etc/passwd").write_text(f"mary:x:{os.getuid()}:{os.getgid()}::/:\n")
    (folder / "etc/group").write_text(f"staff:x:{os.getgid()}:\n")
    (folder / "etc/hostname").write_text("web01\n")
    (folder / "etc/hostname").chmod(0o640)
    (folder / "etc/mtab").symlink_to("/proc/self/mounts")
    (folder / "etc.d").mkdir()
    (folder / "etc.d/empty").touch()
    (folder / "run").mkdir()
    os.mkfifo(folder / "run/fifo", 0o600)
    return folder
