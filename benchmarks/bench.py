"""What every section gets: the fixture's factory, a folder with images, and how thorough to be."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_imagemount.capabilities import missing
from pytest_imagemount.engine.reader import Window
from pytest_imagemount.errors import ProgramFailed
from pytest_imagemount.factory import build_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pytest_imagemount.plugin import MountFactory

ROOT = Path(__file__).parent.parent
MIB = 1 << 20
WINDOW = Window(1 * MIB, 32 * MIB)
"""Where the one partition of every image begins, and how long it is where nothing else is said."""
FSTYPE = "ext4"

IN_LAB = "IMAGEMOUNT_IN_LAB" in os.environ


@dataclass(slots=True)
class Bench:
    """``mount`` is what the fixture ``mounted_image`` gives; ``quick`` asks for a smoke run."""

    mount: MountFactory
    folder: Path
    quick: bool
    _images: dict[tuple[str, int], Path] = field(default_factory=dict)

    def rounds(self, thorough: int, *, lab: int | None = None, quick: int = 1) -> int:
        """How many rounds: ``lab`` of them in the lab, where everything is slower."""
        if self.quick:
            return quick
        return thorough if lab is None or not IN_LAB else lab

    def image(self, format: str, size: int | None = None) -> Path:
        """A disk with a GPT and one ext4 of 32 MiB; ``size`` in bytes makes the disk larger, not the partition."""
        key = format, size or 0
        if key not in self._images:
            partition = {"fstype": FSTYPE, "size": WINDOW.size, "content": {"etc/hostname": "web01\n"}}
            path = self.folder / f"disk-{size or 'small'}.{format}"
            self._images[key] = build_image(path, format=format, table="gpt", size=size, partitions=[partition])
            write_back(path)
        return self._images[key]

    def make_folder(self, name: str) -> Path:
        """An empty folder of this name, made at the first call."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder

    def cycle(self, image: Path, backend: str) -> Callable[[], None]:
        """Mount through the fixture, unmount."""

        def run() -> None:
            with self.mount(image, 1, backend=backend):
                pass

        return run


def write_back(image: Path) -> None:
    """See the image written to the disk: an unmount would wait for that, and whoever came first would pay."""
    with image.open("rb") as file:
        os.fsync(file.fileno())


def lacking(*capabilities: str) -> str:
    """Why this machine cannot do one of ``capabilities``; empty where it can do them all."""
    return next((reason for name in capabilities if (reason := missing(name))), "")


def say(text: str) -> None:
    """Tell how far the run is, on stderr."""
    print(text, file=sys.stderr, flush=True)


def python(*arguments: str, cwd: Path = ROOT, extra_environment: Mapping[str, str] | None = None) -> str:
    """stdout of this Python with ``arguments``, run with the environment of this process.

    :raises ProgramFailed: its exit status is not 0
    """
    argv = [sys.executable, *arguments]
    environment = {**os.environ, **(extra_environment or {})}
    done = subprocess.run(argv, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        output = (done.stdout + done.stderr)[-3000:]
        reason = f"exit status {done.returncode}"
        raise ProgramFailed(argv=argv, returncode=done.returncode, reason=reason, stderr=output)
    return done.stdout


def pytest_arguments(folder: Path, options: Sequence[str] = ()) -> list[str]:
    """The arguments of Python that run pytest over ``folder`` with no configuration but ``options``."""
    bare = ["-c", os.devnull, "--rootdir", str(folder), "-p", "no:cacheprovider"]
    return ["-m", "pytest", *bare, *options, str(folder)]


def wait_for(done: Callable[[], bool], what: str, timeout: float = 60.0) -> None:
    """Wait until ``done``; asked each half millisecond, so that a peer's time is not rounded up.

    :raises TimeoutError: naming ``what``
    """
    deadline = time.monotonic() + timeout
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.0005)
