"""The lab's file systems: the machine's root read-only, scratch folders of its own, and the caller's folders."""

# ruff: noqa: PTH101, PTH102, PTH103, PTH112, PTH123, PTH211
# pathlib is dear to import here.
from __future__ import annotations

import errno
import os

from pytest_imagemount.engine.syscalls import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, mount, umount2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SCRATCH = ("/tmp", "/run", "/var/tmp", "/dev/shm")
"""Folders that are empty and writable in the lab, whatever the machine has there."""

_DEV_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_FOLDER_VARIABLES = (b"TMPDIR", b"XDG_RUNTIME_DIR")


def mount_machine() -> None:
    """Mount proc, sysfs, the device folder and the scratch folders."""
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "")
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "")
    if not os.path.ismount("/dev"):
        mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755")
    for name, target in _DEV_LINKS.items():
        if not os.path.lexists(f"/dev/{name}"):
            os.symlink(target, f"/dev/{name}")
    for folder in ("/dev/pts", "/dev/shm"):
        os.makedirs(folder, exist_ok=True)
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=666,mode=620,gid=5")
    done = set()
    for folder in SCRATCH:
        place = os.path.realpath(folder)
        if place not in done and os.path.isdir(place):
            mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755" if folder == "/run" else "mode=1777")
            done.add(place)
    os.mkdir("/run/lock")
    os.chmod("/run/lock", 0o1777)


def mount_folders(folders: Iterable[tuple[str, bool]]) -> None:
    """Mount each ``(folder, writable)`` of the machine at its own place, outer folders before inner ones."""
    for folder, writable in sorted(folders):
        # A scratch folder may hide the place; it can be made there.
        os.makedirs(folder, exist_ok=True)
        # The path is the whole of hostfs's options: a comma in it ends nothing.
        mount("none", folder, "hostfs", 0 if writable else MS_RDONLY, folder)


def make_named_folders(environment: Mapping[bytes, bytes]) -> None:
    """Make the folders for scratch files that variables name, where they lie in what is a scratch folder here."""
    for name in _FOLDER_VARIABLES:
        folder = environment.get(name, b"")
        if folder.startswith(tuple(os.fsencode(place) + b"/" for place in SCRATCH)):
            os.makedirs(folder, 0o700, exist_ok=True)


def mount_points() -> list[str]:
    """The mount points, in the order in which they were mounted."""
    with open("/proc/self/mounts", "rb") as lines:
        return [os.fsdecode(_unescape(line.split(b" ")[1])) for line in lines]


def unmount_later_than(before: list[str]) -> list[str]:
    """Unmount all that was mounted after ``before`` was taken, and return what could not be."""
    later = mount_points()
    for point in before:
        if point in later:
            later.remove(point)
    stuck = []
    for point in reversed(later):
        try:
            umount2(point)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                stuck.append(point)
    return stuck


def _unescape(field: bytes) -> bytes:
    """Undo proc_pid_mounts(5)'s ``\\040`` for a blank, and its like."""
    first, *rest = field.split(b"\\")
    return first + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in rest)
