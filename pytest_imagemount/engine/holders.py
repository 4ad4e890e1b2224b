"""Who keeps a file system busy: found in /proc, to be named in the failure text."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .loop import backing_file
from .mountinfo import mounts
from .processes import command_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .target import Target


_LINKS = {"cwd": "has {} as its working folder", "root": "has {} as its root", "exe": "runs {}"}


@dataclass(frozen=True, slots=True)
class Use:
    """One process's use of a file system: ``how`` is as in "has the file open as descriptor 14", ``file`` inside it."""

    pid: int
    command: str
    how: str
    file: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.command}) {self.how.format(self.file)}"


def users_of(target: Target) -> list[str]:
    """One line for each thing that keeps the file system at ``target`` busy, as far as this user may see.

    :raises OSError: the file system does not answer
    """
    device = os.stat(target.call).st_dev  # noqa: PTH116  (a Path would lose the dot at the end)
    where = Path(os.path.realpath(target.call))
    lines = [f"{mount.target} is mounted inside it" for mount in mounts() if where in mount.target.parents]
    lines += _loops_on(where)
    processes = [Path(entry.path) for entry in os.scandir("/proc") if entry.name.isdigit()]
    lines += [str(use) for process in processes for use in _uses(process, device, where)]
    return lines or [str(use) for process in processes for use in _mappings(process, device, where)]


def _use(process: Path, how: str, file: str, where: Path) -> Use:
    pid = int(process.name)
    inside = "/" + file.removeprefix(str(where)).lstrip("/")
    return Use(pid, command_of(pid), how, inside if file.startswith(str(where)) else file)


def _loops_on(where: Path) -> Iterator[str]:
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        name = file.parts[-3]
        backing = Path(backing_file(int(name.removeprefix("loop"))))
        if where in backing.parents:
            yield f"/dev/{name} is attached to {backing}"


def _mappings(process: Path, device: int, where: Path) -> Iterator[Use]:
    # Read only when nothing else was found: a file that is mapped is most often open or executed as well.
    number = f"{os.major(device):02x}:{os.minor(device):02x}"
    with suppress(OSError):
        lines = (process / "maps").read_text(errors="replace").splitlines()
        files = {fields[5] for line in lines if len(fields := line.split(maxsplit=5)) == 6 and fields[3] == number}
        yield from (_use(process, "has {} mapped into its memory", file, where) for file in sorted(files))


def _uses(process: Path, device: int, where: Path) -> Iterator[Use]:
    links = [(how, process / name) for name, how in _LINKS.items()]
    with suppress(OSError):  # it has ended, or belongs to another user
        opened = os.scandir(process / "fd")
        links += [(f"has {{}} open as descriptor {entry.name}", Path(entry.path)) for entry in opened]
    for how, link in links:
        try:
            if link.stat().st_dev == device:
                yield _use(process, how, str(link.readlink()), where)
        except OSError:
            continue
