"""The device mapper, straight by ioctl. Source: linux/dm-ioctl.h, Documentation/admin-guide/device-mapper.

Nothing that is made here is known to LVM, and nothing waits for udev: a device is used by its kernel name, ``dm-N``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import CapabilityMissing, DeviceFailed
from ..undo import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

SECTOR = 512
PREFIX = "imagemount-"
"""How the name of every mapping of ours begins; then come the helper's token and the number of the mount."""

_CONTROL = Path("/dev/mapper/control")
# struct dm_ioctl: version[3], data_size, data_start, target_count, open_count, flags, event_nr, padding; dev;
# name[128], uuid[129], data[7].
_HEADER = struct.Struct("=3I2IIiIIIQ128s129s7s")
_TARGET = struct.Struct("=QQiI16s")  # sector_start, length, status, next, target_type; then parameters, NUL

_CREATE, _REMOVE, _SUSPEND, _STATUS, _LOAD, _TARGET_VERSION = 3, 4, 6, 7, 9, 17
_READONLY, _DEFERRED = 1 << 0, 1 << 17
# Upper half of event_nr when a device is resumed: what udev is told in DM_COOKIE. The rules that look for file systems,
# physical volumes and array members pass over a device with these flags. Source: libdevmapper.h.
_UNNOTICED = (0x0002 | 0x0004 | 0x0008) << 16

_GONE_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """One line of a table: ``length`` sectors from ``start`` are of that ``kind`` with those ``parameters``."""

    start: int
    length: int
    kind: str
    parameters: str


@dataclass(slots=True)
class MappedDevice:
    """A mapping, held open by ``fd`` until :meth:`arm` or :meth:`detach`. The kernel removes it at its last close.

    :param name: the mapper's, which is ours alone
    :param number: ``MAJOR:MINOR``
    :param path: ``/dev/dm-N``, for people
    :param node: for system calls of this process
    :param size: bytes
    """

    name: str
    number: str
    path: str
    node: str
    fd: int
    size: int
    own_node: bool = False

    @property
    def attached(self) -> bool:
        """Whether the kernel still has it, and for us."""
        return _name_of(self.number) == self.name

    def arm(self) -> None:
        """Let go: what lies on it, a mount or another mapping, is all that keeps it now."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)

    def detach(self) -> None:
        """Let go, and see it gone. Twice is fine.

        :raises DeviceFailed: something still holds it open
        """
        self.arm()
        if not wait_until(self._is_gone, _GONE_TIMEOUT):
            hint = f"a program has it open, or it is mounted elsewhere: see fuser -vm {self.path}"
            raise DeviceFailed(image="", device=self.path, reason="the mapping is still in use", hint=hint)
        if self.own_node:
            Path(self.node).unlink(missing_ok=True)

    def _is_gone(self) -> bool:
        # The name goes first, then the hold on the devices below, and the device itself last.
        name = _name_of(self.number)
        return name != self.name if name is not None else not Path(f"/sys/dev/block/{self.number}").exists()


def name_of(tag: str, count: int) -> str:
    """The name of mapping ``count`` of the mount with that ``tag`` (``TOKEN:NUMBER``)."""
    return f"{PREFIX}{tag.replace(':', '-')}-{count}"


def create(name: str, targets: Sequence[Target], *, image: str, readonly: bool, node_folder: Path) -> MappedDevice:
    """A new mapping with that table.

    :param node_folder: where a device node is made when ``/dev`` (a container's) has none
    :raises CapabilityMissing: the kernel has no device mapper, or not for us
    :raises DeviceFailed: the kernel refused the table
    """
    table = b"".join(_encode(target) for target in targets)
    flags = _READONLY if readonly else 0
    try:
        _ioctl(_CREATE, name, uuid=name.upper())
        try:
            _ioctl(_LOAD, name, flags=flags, count=len(targets), payload=table)
            _ioctl(_SUSPEND, name, flags=flags, event=_UNNOTICED)  # without the flag to suspend: resume
            return hold(name, image=image, readonly=readonly, node_folder=node_folder)
        except BaseException:
            remove(name)
            raise
    except OSError as error:
        if isinstance(error, DeviceFailed):
            raise
        kinds = ", ".join(sorted({target.kind for target in targets}))
        hint = f"it may have no target {kinds}, or a device below is shorter than the table says: see dmesg"
        reason = f"the device mapper refused its table: {error.strerror}"
        raise DeviceFailed(image=image, device=name, reason=reason, hint=hint, errno=error.errno) from error


def hold(name: str, *, image: str, readonly: bool, node_folder: Path) -> MappedDevice:
    """Open mapping ``name``, whoever made it, and have the kernel remove it at its last close.

    From here on it cannot outlive what uses it, even when every process is dead (DM_DEFERRED_REMOVE, Linux 3.13).

    :raises OSError: there is none of that name
    """
    number = _status(name)
    major, minor = map(int, number.split(":"))
    node, own_node = _node(major, minor, node_folder)
    try:
        fd = os.open(node, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
        try:
            remove(name, deferred=True)
            size = os.lseek(fd, 0, os.SEEK_END)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        if own_node:
            Path(node).unlink(missing_ok=True)
        hint = "`imagemount doctor` says what this machine can do"
        reason = f"{error.strerror} while opening it"
        raise DeviceFailed(image=image, device=name, reason=reason, hint=hint, errno=error.errno) from error
    path = os.path.realpath(node) if own_node else node
    return MappedDevice(name, number, path, node, fd, size, own_node)


def remove(name: str, *, deferred: bool = False) -> None:
    """Remove the mapping ``name``; none of that name is fine.

    :param deferred: where it is open, at its last close
    :raises OSError: EBUSY: it is open
    """
    try:
        _ioctl(_REMOVE, name, flags=_DEFERRED if deferred else 0)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
    # Where no udev makes links there, programs that use libdevmapper make a node, and nobody would remove it.
    node = Path("/dev/mapper") / name
    with suppress(OSError):
        if stat.S_ISBLK(node.lstat().st_mode):
            node.unlink()


def names(prefix: str = PREFIX) -> list[str]:
    """The mappings whose name begins with ``prefix``, those made last first; none where there is no device mapper."""
    found = []
    for entry in Path("/sys/block").glob("dm-*/dm/name"):
        with suppress(OSError):  # gone between the listing and the read
            name = entry.read_text().strip()
            if name.startswith(prefix):
                found.append((int(entry.parents[1].name.removeprefix("dm-")), name))
    return [name for _, name in sorted(found, reverse=True)]


def require() -> None:
    """Return where the kernel has a device mapper.

    :raises CapabilityMissing: it has none, or not for us
    """
    os.close(_open_control())


def has_target(kind: str) -> bool:
    """Whether the kernel has targets of that kind; it loads the module by which it comes (Linux 5.1)."""
    try:
        _ioctl(_TARGET_VERSION, kind)
    except (OSError, CapabilityMissing):
        return False
    return True


def number_of(fd: int) -> str:
    """``MAJOR:MINOR`` of the block device that is open at ``fd``, as tables name it."""
    device = os.fstat(fd).st_rdev
    return f"{os.major(device)}:{os.minor(device)}"


def _encode(target: Target) -> bytes:
    parameters = target.parameters.encode() + b"\0"
    size = -(-(_TARGET.size + len(parameters)) // 8) * 8
    head = _TARGET.pack(target.start, target.length, 0, size, target.kind.encode())
    return (head + parameters).ljust(size, b"\0")


def _status(name: str) -> str:
    device = int(_HEADER.unpack_from(_ioctl(_STATUS, name))[10])
    # As the kernel packs it (new_encode_dev): 12 bits of major between the low 8 and the high bits of minor.
    return f"{(device >> 8) & 0xFFF}:{(device & 0xFF) | ((device >> 12) & 0xFFF00)}"


def _name_of(number: str) -> str | None:
    try:
        return Path(f"/sys/dev/block/{number}/dm/name").read_text().strip()
    except OSError:
        return None


def _node(major: int, minor: int, folder: Path) -> tuple[str, bool]:
    path = f"/dev/dm-{minor}"
    with suppress(OSError):
        if os.stat(path).st_rdev == os.makedev(major, minor):  # noqa: PTH116
            return path, False
    own = folder / f"dm-{minor}"
    own.unlink(missing_ok=True)
    os.mknod(own, stat.S_IFBLK | 0o600, os.makedev(major, minor))
    return str(own), True


def _ioctl(
    command: int, name: str, *, flags: int = 0, count: int = 0, event: int = 0, uuid: str = "", payload: bytes = b""
) -> bytes:
    size = _HEADER.size + max(len(payload), 1024)
    header = _HEADER.pack(
        4, 0, 0, size, _HEADER.size, count, 0, flags, event, 0, 0, name.encode(), uuid.encode()[:128], b""
    )
    request = bytearray((header + payload).ljust(size, b"\0"))
    fd = _open_control()
    try:
        # _IOWR(0xfd, command, struct dm_ioctl)
        fcntl.ioctl(fd, 3 << 30 | _HEADER.size << 16 | 0xFD << 8 | command, request)
    finally:
        os.close(fd)
    return bytes(request)


def _open_control() -> int:
    try:
        return os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        hint = "run `modprobe dm_mod` as root, or run the tests in `imagemount lab`, whose kernel has it"
        reason = f"{_CONTROL}: {error.strerror}"
        raise CapabilityMissing(capability="device-mapper", reason=reason, hint=hint) from None
