"""Loop devices, straight by ioctl: LOOP_CTL_GET_FREE and LOOP_CONFIGURE.

Source: linux/loop.h, loop(4). LOOP_CONFIGURE came with Linux 5.8: it sets the file, the window and the flags in one
step, so that no half-configured device is ever seen.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CapabilityMissing, DeviceFailed
from .privilege import missing_privilege
from .undo import wait_until

if TYPE_CHECKING:
    from .reader import Window

_CONTROL = "/dev/loop-control"
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CLR_FD = 0x4C01
_LOOP_GET_STATUS64 = 0x4C05
_LOOP_CONFIGURE = 0x4C0A
_BLKGETDISKSEQ = 0x80081280  # linux/fs.h

_READ_ONLY = 1
_AUTOCLEAR = 4
_PARTSCAN = 8

# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt_type, encrypt_key_size, flags;
# file_name[64], crypt_name[64], encrypt_key[32]; init[2].
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
_CONFIG_HEAD = struct.Struct("=2I")  # fd, block_size; then loop_info64, then 8 reserved u64

TAG = "imagemount:"
"""Prefix of ``lo_file_name`` in every device of ours: LOOP_GET_STATUS64 tells whose a device is."""

# GET_FREE reserves nothing: with many workers the device is often taken between the two calls, and the answer is to
# ask again at once. The bound is for a kernel that gives out a device which it never lets us have.
_CONFIGURE_TIMEOUT = 10.0
_DETACH_TIMEOUT = 2.0


@dataclass(slots=True)
class LoopDevice:
    """A configured loop device, held open by ``fd`` until :meth:`arm` or :meth:`detach`.

    ``path`` is its node for people and other processes, ``node`` for system calls of this one.
    """

    number: int
    path: str
    fd: int
    diskseq: str | None
    node: str
    own_node: bool = False

    @property
    def attached(self) -> bool:
        """Whether the kernel still has it attached for us."""
        return self._attached()

    def arm(self) -> None:
        """Let go of the device: from here on the kernel detaches it at the last unmount (autoclear)."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def detach(self) -> None:
        """Let go of the device and see it gone from the kernel's view.

        :raises DeviceFailed: something else still holds it open
        """
        self.arm()
        if not wait_until(lambda: not self._attached(), _DETACH_TIMEOUT):
            reason = "the device is still in use"
            hint = f"a program has it open, or it is mounted in another mount namespace: see fuser -vm {self.path}"
            raise DeviceFailed(image=backing_file(self.number), device=self.path, reason=reason, hint=hint)
        if self.own_node:
            Path(self.node).unlink(missing_ok=True)

    def _attached(self) -> bool:
        # The number may have gone to somebody else in the meantime. The kernel counts up diskseq (Linux 5.15) with
        # every change of the disk behind a device, so the same value means that it is still ours.
        if not os.path.isdir(f"/sys/block/loop{self.number}/loop"):  # noqa: PTH112  (asked at every unmount)
            return False
        return self.diskseq is None or disk_sequence(self.number) == self.diskseq


def attach(
    fd: int,
    window: Window,
    *,
    image: str,
    readonly: bool,
    tag: str = "",
    sector_size: int = 512,
    partition_nodes: bool = False,
    node_folder: Path | None = None,
) -> LoopDevice:
    """A loop device whose bytes are ``window`` of the file open at ``fd`` (which the kernel keeps by itself).

    :param image: the image's name, for messages
    :param tag: what the device's ``lo_file_name`` says between our prefix and the image's name, by which it is
        reclaimed; by default the process id
    :param sector_size: logical sector size in bytes of the new device
    :param partition_nodes: let the device have partitions
    :param node_folder: where a device node is made when ``/dev`` (a container's) has none
    :raises CapabilityMissing: the kernel has no loop driver, or this process may not use it
    :raises DeviceFailed: the kernel refused
    """
    flags = _AUTOCLEAR | (_READ_ONLY if readonly else 0) | (_PARTSCAN if partition_nodes else 0)
    name = f"{TAG}{tag or os.getpid()}:{image.rpartition('/')[2]}".encode(errors="replace")[:63]
    info = _INFO.pack(0, 0, 0, window.offset, window.size, 0, 0, 0, flags, name, b"", b"", 0, 0)
    config = bytearray(_CONFIG_HEAD.pack(fd, 0 if sector_size == 512 else sector_size) + info + bytes(64))
    control = _open_control()
    deadline = time.monotonic() + _CONFIGURE_TIMEOUT
    try:
        while True:
            number = fcntl.ioctl(control, _LOOP_CTL_GET_FREE)
            node, own_node = _node(number, node_folder)
            configured = False
            try:
                device_fd = os.open(node, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
                try:
                    fcntl.ioctl(device_fd, _LOOP_CONFIGURE, config)
                    configured = True
                except BaseException:
                    os.close(device_fd)
                    raise
                finally:
                    if own_node and not configured:
                        Path(node).unlink()
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENXIO) or time.monotonic() > deadline:
                    raise _refused(image, node, error) from error
                continue
            path = os.path.realpath(node) if own_node else node
            return LoopDevice(number, path, device_fd, _disk_sequence_of(device_fd, number), node, own_node)
    finally:
        os.close(control)


def tag_of(number: int, node: str | None = None) -> str | None:
    """``lo_file_name`` of loop device ``number``, or None where nothing is attached.

    :param node: its device node, where that is not ``/dev/loopN``
    """
    try:
        fd = os.open(node or f"/dev/loop{number}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _tag(fd)
    except OSError:
        return None
    finally:
        os.close(fd)


def detach_disk(number: int, diskseq: str | None, node: str | None = None) -> None:
    """Detach loop device ``number`` if it still has the disk ``diskseq``. One that is gone, or another's, is fine.

    :raises DeviceFailed: something still holds it open
    """
    path = node or f"/dev/loop{number}"
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    # While it is open here it cannot become another's between the look at its disk and the detach.
    try:
        if disk_sequence(number) != diskseq:
            return
        fcntl.ioctl(fd, _LOOP_CLR_FD)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing attached: what was wanted
            return
        raise
    finally:
        os.close(fd)
    LoopDevice(number, path, -1, diskseq, path).detach()


def _tag(fd: int) -> str:
    status = bytearray(_INFO.size)
    fcntl.ioctl(fd, _LOOP_GET_STATUS64, status)
    name: bytes = _INFO.unpack(status)[9]
    return name.rstrip(b"\0").decode(errors="replace")


def clear(path: str) -> None:
    """LOOP_CLR_FD on an adopted device. While somebody has it open the kernel waits for the last close."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _LOOP_CLR_FD)
    except OSError as error:
        if error.errno != errno.ENXIO:  # nothing attached: what was wanted
            raise
    finally:
        os.close(fd)


def _open_control() -> int:
    try:
        return os.open(_CONTROL, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        reason = f"{_CONTROL} does not exist: the kernel has no loop driver, or the container does not show it"
        hint = "run `modprobe loop`, or start the container with --device /dev/loop-control"
        raise missing_privilege() or CapabilityMissing(capability="loop", reason=reason, hint=hint) from None
    except PermissionError as error:
        hint, reason = "run as root, or allow `sudo -n`", f"{_CONTROL}: {error.strerror}"
        raise missing_privilege() or CapabilityMissing(capability="loop", reason=reason, hint=hint) from None


def _node(number: int, folder: Path | None) -> tuple[str, bool]:
    path = f"/dev/loop{number}"
    if folder is None or os.path.exists(path):  # noqa: PTH110  (asked at every mount)
        return path, False
    # In a container /dev is often a tmpfs in which new devices do not appear.
    major, minor = Path(f"/sys/block/loop{number}/dev").read_text().split(":")
    own = folder / f"loop{number}"
    if not own.exists():
        os.mknod(own, stat.S_IFBLK | 0o600, os.makedev(int(major), int(minor)))
    return str(own), True


def disk_sequence(number: int) -> str | None:
    """What the kernel counts up with each change of the disk behind ``loopN``; None before Linux 5.15."""
    try:
        return Path(f"/sys/block/loop{number}/diskseq").read_text().strip()
    except OSError:
        return None


def _disk_sequence_of(fd: int, number: int) -> str | None:
    """The same of the device that is open at ``fd``, in one system call."""
    try:
        answer = fcntl.ioctl(fd, _BLKGETDISKSEQ, bytes(8))
    except OSError:
        return disk_sequence(number)
    return str(int.from_bytes(answer, sys.byteorder))


def backing_file(number: int) -> str:
    """Path of the file behind ``loopN``: ``/`` when its file system is not mounted any more, ``?`` without a file."""
    try:
        # The kernel writes the name as it is, whatever bytes it has.
        return os.fsdecode(Path(f"/sys/block/loop{number}/loop/backing_file").read_bytes().removesuffix(b"\n"))
    except OSError:
        return "?"


def _refused(image: str, path: str, error: OSError) -> DeviceFailed | CapabilityMissing:
    if missing := missing_privilege(error):
        return missing
    hints = {
        errno.EINVAL: "the kernel may be older than 5.8, which brought LOOP_CONFIGURE",
        errno.EPERM: "run as root, or allow `sudo -n`; in a container, add CAP_SYS_ADMIN",
        errno.EACCES: "run as root, or allow `sudo -n`; in a container, allow block devices of major 7",
        errno.EROFS: "the image can only be opened read-only here: use mode='ro' or mode='overlay'",
    }
    hint = hints.get(error.errno or 0, "`imagemount doctor` says what this machine can do")
    reason = f"{error.strerror} while attaching"
    return DeviceFailed(image=image, device=path, reason=reason, hint=hint, errno=error.errno)
