"""What is left of a cell: everything of ours that exists and did not exist before it."""

from __future__ import annotations

import fcntl
import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_imagemount.engine.folders import lock_folder, run_folder
from pytest_imagemount.engine.mountinfo import mounts
from tests import leaks

from . import lane

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


class Watch:
    """Compares with what was there when it was made.

    :param mark: what the names of the cell's images begin with
    :param images: their paths
    :param temporary: the temporary folder of the cell's processes
    :param nbd: count NBD devices: only where no other lane uses any
    """

    def __init__(self, mark: str, images: Collection[Path], temporary: Path, *, nbd: bool) -> None:
        self._mark = mark
        self._images = images
        self._temporary = temporary
        self._nbd = nbd
        self._tokens: set[str] = set()
        self.sums = self._sums()
        self.mounts = mounts()
        self._before = self._now()

    def left(self) -> list[str]:
        """One line for each thing of ours that is there now and was not before."""
        return sorted(self._now() - self._before)

    def mounted(self) -> int:
        """How many more mounts there are than before. To be called while there are some: it notes whose they are."""
        self._tokens |= {path.name for path in run_folder().iterdir()}
        return len(mounts()) - len(self.mounts)

    def changed(self) -> list[str]:
        """The images whose SHA-256 is another now."""
        return [f"{path.name} has changed" for path, digest in self._sums().items() if self.sums[path] != digest]

    def _now(self) -> set[str]:
        ours = set(lane.processes())
        lines = [f"mount {entry.source} ({entry.fstype}) at {entry.target}" for entry in mounts()]
        # A device on a file of a dead FUSE server does not even tell its tag: it is known by the folder of that file.
        lines += [line for line in leaks.loops() if any(name in line for name in (f":{self._mark}", *self._tokens))]
        lines += leaks.mappings() + leaks.locks() + (leaks.nbds() if self._nbd else [])
        lines += [f"process {pid}: {command}" for pid, command in leaks.processes() if pid in ours]
        lines += [f"in the run folder: {path}" for path in run_folder().iterdir()]
        # Lock files stay, unlocked: who removed one could not know whether another process is about to lock it.
        lines += [f"note {path}" for path in lock_folder().rglob("*") if path.is_file() and path.suffix != ".lock"]
        lines += [f"image {path.name} is locked" for path in self._images if _is_locked(path)]
        # pytester's and tmp_path's folders are pytest's own, which keeps them.
        lines += [f"temporary file {path}" for path in self._temporary.glob("*") if not path.match("pytest-of-*")]
        return set(lines)

    def _sums(self) -> dict[Path, str]:
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in self._images}


def _is_locked(path: Path) -> bool:
    with suppress(OSError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
