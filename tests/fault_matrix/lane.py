"""A process that runs cells, one after the other, in a mount namespace of its own.

What is mounted, and what is in our run and lock folders, is then that cell's alone, however many others run at the same
time; and a process belongs to the cell when it is in this namespace. The lane lives on when a cell's processes are
dead, and with it the namespace and every mount that was left in it.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_imagemount.engine import loop, syscalls
from pytest_imagemount.engine.folders import lock_folder, run_folder
from pytest_imagemount.engine.mountinfo import MountEntry, mounts
from pytest_imagemount.engine.nbd.netlink import NbdNetlink
from pytest_imagemount.engine.nbd.pool import BACKEND_PREFIX
from pytest_imagemount.engine.nbd.state import kernel_state
from pytest_imagemount.engine.undo import wait_until
from pytest_imagemount.factory.images import build_image

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18  # linux/mount.h
_MNT_DETACH = 2
_NAMESPACE = "/proc/self/ns/mnt"


def enter_lane() -> None:
    """Make this process a lane: called once, when it starts.

    :raises OSError: it may not have a mount namespace of its own
    """
    syscalls.set_parent_death_signal(signal.SIGTERM)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # SIGQUIT and SIGSEGV shall leave no core file either
    folders = (run_folder().parent, lock_folder())
    if syscalls.libc().unshare(_CLONE_NEWNS):
        raise OSError(errno.EPERM, "no mount namespace of its own: root with CAP_SYS_ADMIN is needed")
    syscalls.mount("none", "/", "", _MS_REC | _MS_PRIVATE, "")
    _let_go_of_others()
    for folder in folders:
        syscalls.mount("faults", str(folder), "tmpfs", 0, "mode=0711")
    run_folder()


def processes() -> list[int]:
    """Every process of this lane but the lane itself; zombies do not count."""
    own = os.readlink(_NAMESPACE)  # noqa: PTH115  (no path: a name of the kernel's)
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):  # it has ended
                if os.readlink(f"/proc/{entry.name}/ns/mnt") == own:  # noqa: PTH115
                    found.append(int(entry.name))
    return found


def clear_up(before: list[MountEntry], mark: str) -> None:
    """Remove by force whatever a cell left, so that the next one starts from nothing.

    :param before: the mounts that were there before the cell
    :param mark: what the names of the cell's images begin with
    """
    for _ in range(3):  # what is killed may have been starting something
        for pid in processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not processes(), 2)
    known = {entry.mount_id for entry in before}
    for entry in reversed(mounts()):
        if entry.mount_id not in known:
            syscalls.umount2(str(entry.target), _MNT_DETACH)
    for number, tag in _tagged():
        if f":{mark}" in tag:
            with suppress(OSError):
                loop.clear(f"/dev/loop{number}")
    _disconnect_ours()
    for folder in (run_folder(), lock_folder()):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@cache
def template(form: str) -> Path:
    """An image of format ``form`` to copy: partition 1 is an ext4 with some files and room.

    It is an open file that has no name any more, gone with the lane however that ends.
    """
    content = {"etc/hostname": "web01\n", "large": bytes(range(256)) * 1024}
    with tempfile.TemporaryDirectory(prefix="faults-images-") as folder:
        image = build_image(
            Path(folder) / f"template.{form}",
            format=form,
            table="gpt",
            partitions=[{"fstype": "ext4", "size": "20M", "content": content}],
        )
        return Path(f"/proc/self/fd/{os.open(image, os.O_RDONLY | os.O_CLOEXEC)}")


def _let_go_of_others() -> None:
    """Drop the copies that this namespace got of others' mounts, which would keep their devices busy."""
    ours = {f"/dev/loop{number}" for number, tag in _tagged() if tag.startswith(loop.TAG)}
    for entry in reversed(mounts()):
        if entry.source in ours or entry.source.startswith("/dev/nbd") or "imagemount" in str(entry.target):
            with suppress(OSError):
                syscalls.umount2(str(entry.target), _MNT_DETACH)


def _tagged() -> Iterator[tuple[int, str]]:
    for folder in Path("/sys/block").glob("loop*/loop"):
        number = int(folder.parent.name.removeprefix("loop"))
        if tag := loop.tag_of(number):
            yield number, tag


def _disconnect_ours() -> None:
    # Cells with NBD never run at the same time, so every connection of ours is the last cell's.
    for folder in Path("/sys/block").glob("nbd*/pid"):
        index = int(folder.parent.name.removeprefix("nbd"))
        driver = NbdNetlink.open()
        if driver is not None and kernel_state(index).backend.startswith(BACKEND_PREFIX):
            with driver, suppress(OSError):
                driver.disconnect(index)
