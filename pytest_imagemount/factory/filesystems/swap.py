"""Swap space by mkswap: no content, but a label and a UUID."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import programs
from ...errors import RequestInvalid
from ..sizes import KIB, MIB
from .volume import FilesystemKind, Volume

if TYPE_CHECKING:
    from pathlib import Path


def _make(volume: Volume, target: Path, scratch: Path) -> None:
    if volume.tree.entries:
        raise RequestInvalid(argument="content", value="…", reason="swap space has no files; leave out the content")
    target.chmod(0o600)
    label = ["-L", volume.label] if volume.label else []
    argv = ["mkswap", "-q", "-p", "4096", "-U", volume.uuid, *label, *volume.options, str(target)]
    programs.run(argv, extra_environment=volume.environment())


KIND = FilesystemKind(make=_make, default_size=lambda _: MIB, minimum=40 * KIB, label_limit=16)
