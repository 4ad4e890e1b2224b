"""MD arrays, put together by the kernel's own reading of their superblocks, through sysfs.

mdadm would do the same, and more: it keeps a map of every array in /run/mdadm, makes links in /dev/md, and starts an
array under a number that is then the only sign of whose it is. An array of ours has a name of ours. Which members are
current is judged by the kernel in either case. Source: Documentation/admin-guide/md.rst, "RAID arrays".
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import CapabilityMissing, DeviceFailed, ProgramFailed, VolumeInvalid
from ..undo import wait_until
from . import dm
from .kinds import RAID

if TYPE_CHECKING:
    from .ground import Block, Ground

PREFIX = "md_im-"
"""How the kernel's name of every array of ours begins; then come the helper's token and the number of the mount."""

_MODULE = Path("/sys/module/md_mod")
_GONE_TIMEOUT = 2.0
_VERSIONS = {"0.90": "0.90", "1.0": "1.0", "1.1": "1.1", "1.2": "1.2"}


@dataclass(slots=True)
class ArrayDevice:
    """A running array, held open by ``fd`` until :meth:`arm` or :meth:`detach`.

    The kernel has no way to stop an array at its last close: :meth:`detach` does, and what comes after a dead helper.
    """

    name: str
    path: str
    node: str
    fd: int = -1
    size: int = 0
    own_node: bool = False

    @property
    def attached(self) -> bool:
        """Whether the kernel still has it; its name is ours alone."""
        return _folder(self.name).exists()

    def arm(self) -> None:
        """Let go; the array runs on."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def detach(self) -> None:
        """Stop the array, and see it gone. Twice is fine.

        :raises DeviceFailed: something still holds it open
        """
        self.arm()
        stop(self.name)
        if self.own_node:
            Path(self.node).unlink(missing_ok=True)


def array_name(tag: str, count: int) -> str:
    """The kernel's name for array ``count`` of the mount with that ``tag`` (``TOKEN:NUMBER``)."""
    return f"{PREFIX}{tag.replace(':', '-')}-{count}"


def arrays(prefix: str = PREFIX) -> list[str]:
    """The arrays whose name begins with ``prefix``."""
    return sorted(entry.name for entry in Path("/sys/block").glob(f"{prefix}*"))


def stop(name: str) -> None:
    """Stop the array ``name``, and see it gone; none of that name is fine.

    :raises DeviceFailed: something holds it open
    """
    folder = _folder(name)
    refused = 0

    def gone() -> bool:
        nonlocal refused
        try:
            (folder / "md/array_state").write_text("clear")
        except OSError as error:
            refused = error.errno or 0
        return not folder.exists()

    if not wait_until(gone, _GONE_TIMEOUT):
        reason = "the array is still in use" if refused in (0, errno.EBUSY) else os.strerror(refused)
        hint = f"a program has it open, or it is mounted elsewhere: see fuser -vm /dev/{name}"
        raise DeviceFailed(image="", device=f"/dev/{name}", reason=reason, hint=hint, errno=refused or None)


def assemble(ground: Ground, block: Block) -> ArrayDevice:
    """The running array that ``block`` is a member of; the others are looked for in all images.

    In modes ro and overlay a redundant array may lack members. In mode rw it may not: its superblocks would say from
    then on that those are stale. No member is ever resynchronised.

    :raises VolumeInvalid: too many members are missing, or the kernel does not take them for an array
    :raises CapabilityMissing: the kernel has no MD
    """
    members, version = _members(ground, block)
    _load_module()
    name = ground.new_array_name()
    numbers = []
    for member in members:
        device, _ = member.device(ground)
        # udev does not look at a device while that is locked: it would have mdadm put the array together first.
        with suppress(OSError):
            fcntl.flock(device.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        numbers.append(dm.number_of(device.fd))
    places = ", ".join(member.place for member in members)
    array = ArrayDevice(name, f"/dev/{name}", f"/dev/{name}")
    try:
        (_MODULE / "parameters/new_array").write_text(name)
        ground.undo.push(f"stop the array {name}", array.detach)
        _start(name, version, numbers)
        _make_writable(ground, name, places)
        _hold(array, ground)
    except OSError as error:
        if isinstance(error, DeviceFailed):
            raise
        reason = f"the kernel does not run the array of {places}: {error.strerror}"
        hint = "give every image with a member of it, as a list; see the kernel log (dmesg)"
        raise VolumeInvalid(image=ground.image, reason=reason, hint=hint) from error
    return array


def _members(ground: Ground, block: Block) -> tuple[list[Block], str]:
    """Every member of the array that ``block`` is one of, and the version of their superblocks."""
    first = block.superblock()
    assert first is not None
    version = _VERSIONS.get(".".join((first.version or "").split(".")[:2]))
    if version is None:
        reason = f"{block.place} is an MD member with superblocks of version {first.version}"
        raise VolumeInvalid(image=ground.image, reason=reason, hint=f"only {', '.join(_VERSIONS)} are known")
    members: list[Block] = [block]
    for candidate in ground.candidates():
        found = candidate.superblock() if candidate != block else None
        if found is not None and (found.type, found.uuid) == (RAID, first.uuid):
            members.append(candidate)
    return members, version


def _start(name: str, version: str, numbers: list[str]) -> None:
    folder = _folder(name) / "md"
    (folder / "metadata_version").write_text(version)
    for number in numbers:
        (folder / "new_dev").write_text(number)
    # Started so, nothing is written to any member: no superblock, no bitmap, no resynchronisation.
    (folder / "array_state").write_text("readonly")


def _make_writable(ground: Ground, name: str, places: str) -> None:
    if ground.readonly:
        return
    folder = _folder(name) / "md"
    missing = int(_read(folder / "degraded") or 0)
    if missing and ground.mode == "rw":
        reason = f"the array of {places} lacks {missing} of its {_read(folder / 'raid_disks')} members"
        hint = "give the others too, as a list of images, or use mode='ro' or mode='overlay'"
        raise VolumeInvalid(image=ground.image, reason=reason, hint=hint)
    with suppress(OSError):  # arrays without redundancy have no such file
        (folder / "sync_action").write_text("frozen")
    (folder / "array_state").write_text("active")


def _hold(array: ArrayDevice, ground: Ground) -> None:
    if not Path(array.node).exists():
        major, minor = map(int, _read(_folder(array.name) / "dev").split(":"))
        array.node, array.own_node = str(ground.folder / array.name), True
        os.mknod(array.node, stat.S_IFBLK | 0o600, os.makedev(major, minor))
        array.path = os.path.realpath(array.node)
    array.fd = os.open(array.node, (os.O_RDONLY if ground.readonly else os.O_RDWR) | os.O_CLOEXEC)
    array.size = os.lseek(array.fd, 0, os.SEEK_END)


def _load_module() -> None:
    if not _MODULE.exists():
        from ...programs import run  # late: cleaning up after others needs this module, and starts no program

        with suppress(ProgramFailed):
            run(["modprobe", "md_mod"])
    if not _MODULE.exists():
        # Without modprobe in the path: the target raid of the device mapper needs the module, and the kernel loads it.
        dm.has_target("raid")
    if not _MODULE.exists():
        hint = "run `modprobe md_mod` as root, or run the tests in `imagemount lab`, whose kernel has it"
        raise CapabilityMissing(capability="md", reason="the kernel module md_mod is not loaded", hint=hint)


def _folder(name: str) -> Path:
    return Path("/sys/block") / name


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text().strip()
    return ""
