"""What is asked of a cell: that its image is mounted, read, written to as its mode says, and changed in no other."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from .filesystems import DATA, NAME
from .formats import check, driver

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_imagemount.plugin import MountFactory

    from .building import Built
    from .cells import Cell

_NEW = "new.txt"
_WRITTEN = DATA[::-1]


def check_cell(cell: Cell, built: Built, mounted_image: MountFactory) -> str:
    """Return when all is well; the backend that served."""
    before = _state(built)
    with mounted_image(built.image, built.partition, mode=cell.mode, **built.options) as image:
        assert (image.format, image.fstype, image.mode) == (driver(cell.format), cell.filesystem, cell.mode)
        assert image.partition == built.partition
        assert (image / NAME).read_bytes() == DATA
        backend = image.backend
        if cell.mode != "ro":
            (image / NAME).write_bytes(_WRITTEN)
            (image / _NEW).write_bytes(DATA)
            os.sync()
            assert (image / NAME).read_bytes() == _WRITTEN
            assert (image / _NEW).read_bytes() == DATA
    if cell.mode != "rw":
        assert _state(built) == before
        return backend
    with mounted_image(built.image, built.partition, **built.options) as image:
        assert (image / NAME).read_bytes() == _WRITTEN
        assert (image / _NEW).read_bytes() == DATA
    for files in built.images:
        check(cell.format, files[0])
    return backend


def _state(built: Built) -> dict[Path, tuple[str, int]]:
    """SHA-256 and time of the last change of each file."""
    return {file: (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns) for file in built.files}
