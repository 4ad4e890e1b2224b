"""What a user would pick instead: the programs' own sequences for the same job, the same window and mount options."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_imagemount import programs
from pytest_imagemount.errors import ProgramFailed

from .bench import IN_LAB, WINDOW, lacking, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_OPTIONS = "ro,nosuid,nodev"
_LOOP = f"{_OPTIONS},loop,offset={WINDOW.offset},sizelimit={WINDOW.size}"
_NBD = Path("/dev/nbd0")
_NBD_PID = Path("/sys/block/nbd0/pid")
# The appliance is emulated: there is no KVM in most CI machines. With nothing set, guestmount goes by libvirt.
_GUESTFS = {"LIBGUESTFS_BACKEND": "direct", "LIBGUESTFS_BACKEND_SETTINGS": "force_tcg"}
_NO_UDEV = {"DM_DISABLE_UDEV": "1"}  # in the lab nobody answers libdevmapper for udev


@dataclass(frozen=True, slots=True)
class Peer:
    """A sequence of programs that mounts an image at a folder and undoes that.

    :param formats: of image that it takes
    :param programs: the programs that must be installed, each with its Debian package
    :param needs: capabilities of the machine
    :param rounds: at most; None is every round
    :param in_lab: whether it is worth running in the lab
    """

    name: str
    cycle: Callable[[Path, str, Path], None]
    formats: tuple[str, ...]
    programs: dict[str, str]
    needs: tuple[str, ...] = ("loop",)
    rounds: int | None = None
    in_lab: bool = True

    @property
    def missing(self) -> str:
        """Why it cannot run here; empty where it can."""
        absent = {name: package for name, package in self.programs.items() if programs.find_program(name) is None}
        if absent:
            packages = " ".join(dict.fromkeys(absent.values()))
            return f"not installed: {', '.join(absent)} (package {packages}; ./benchmarks/run --install)"
        if IN_LAB and not self.in_lab:
            return "boots a virtual machine of its own: measured on the machine only"
        return lacking(*self.needs)


def _losetup(image: Path, format: str, target: Path) -> None:
    place = ["--offset", str(WINDOW.offset), "--sizelimit", str(WINDOW.size)]
    device = _output("losetup", "--find", "--show", "--read-only", *place, str(image))
    _output("mount", "-o", _OPTIONS, device, str(target))
    _output("umount", str(target))
    _output("losetup", "--detach", device)


def _mount_loop(image: Path, format: str, target: Path) -> None:
    _output("mount", "-o", _LOOP, str(image), str(target))
    _output("umount", str(target))


def _kpartx(device: str, target: Path) -> None:
    """What the classic mount drivers do with a whole device: partition nodes by kpartx, then mount one of them."""
    _output("kpartx", "-a", "-r", "-s", device, **_NO_UDEV)
    _output("mount", "-o", _OPTIONS, f"/dev/mapper/{Path(device).name}p1", str(target))
    _output("umount", str(target))
    _output("kpartx", "-d", "-s", device, **_NO_UDEV)


def _classic_loop(image: Path, format: str, target: Path) -> None:
    device = _output("losetup", "--find", "--show", "--read-only", str(image))
    _kpartx(device, target)
    _output("losetup", "--detach", device)


def _classic_nbd(image: Path, format: str, target: Path) -> None:
    with _qemu_nbd("--format", format, str(image)):
        _kpartx(str(_NBD), target)


def _qemu_nbd_window(image: Path, format: str, target: Path) -> None:
    window = f"driver=raw,offset={WINDOW.offset},size={WINDOW.size},file.driver={format},file.file.driver=file"
    with _qemu_nbd("--image-opts", f"{window},file.file.filename={image}"):
        _output("mount", "-o", _OPTIONS, str(_NBD), str(target))
        _output("umount", str(target))


@contextmanager
def _qemu_nbd(*what: str) -> Iterator[None]:
    _output("qemu-nbd", f"--connect={_NBD}", "--read-only", *what)
    wait_for(_NBD_PID.exists, f"{_NBD} connected")
    yield
    _output("qemu-nbd", "--disconnect", str(_NBD))
    wait_for(lambda: not _NBD_PID.exists(), f"{_NBD} disconnected")


def _systemd_dissect(image: Path, format: str, target: Path) -> None:
    _output("systemd-dissect", "--mount", "--read-only", str(image), str(target))
    _output("systemd-dissect", "--umount", str(target))


def _nbdfuse(image: Path, format: str, target: Path) -> None:
    folder = target.with_name(f"{target.name}-nbdfuse")
    folder.mkdir(exist_ok=True)
    disk = folder / "disk"
    server = ["[", "qemu-nbd", "--read-only", f"--format={format}", str(image), "]"]
    process = subprocess.Popen(
        ["nbdfuse", "--readonly", str(disk), *server], env=programs.environment(), stdin=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: process.poll() is not None or disk.exists(), f"{disk} served")
        _mount_loop(disk, "raw", target)
        _output("umount", str(folder))
    except BaseException:
        process.kill()
        raise
    finally:
        if status := process.wait(30):
            reason = f"exit status {status}"
            raise ProgramFailed(argv=["nbdfuse"], returncode=status, reason=reason)


def _guestmount(image: Path, format: str, target: Path) -> None:
    pid_file = target.with_name(f"{target.name}-guestmount.pid")
    place = ["--ro", f"--format={format}", "--add", str(image), "--mount", "/dev/sda1", "--pid-file", str(pid_file)]
    _output("guestmount", *place, str(target), **_GUESTFS)
    daemon = os.pidfd_open(int(pid_file.read_text()))
    try:
        _output("guestunmount", str(target))
        # It says that it is done while the virtual machine still runs.
        wait_for(lambda: _has_ended(daemon), "the end of guestmount")
    finally:
        os.close(daemon)


def _has_ended(process: int) -> bool:
    import select

    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(0))


def _output(*argv: str, **extra_environment: str) -> str:
    return programs.run(argv, extra_environment=extra_environment, timeout=600).decode().strip()


_UTIL_LINUX = {"mount": "mount", "umount": "mount"}
_LOSETUP = {"losetup": "util-linux", **_UTIL_LINUX}
_QEMU_NBD = {"qemu-nbd": "qemu-utils", **_UTIL_LINUX}
_KPARTX = {"kpartx": "kpartx"}

PEERS = (
    Peer("losetup, mount, umount, losetup -d", _losetup, ("raw",), _LOSETUP),
    Peer("mount -o loop, umount", _mount_loop, ("raw",), _UTIL_LINUX),
    Peer(
        "losetup, kpartx, mount, …: the classic driver",
        _classic_loop,
        ("raw",),
        {**_LOSETUP, **_KPARTX},
        ("loop", "device-mapper"),
    ),
    Peer(
        "systemd-dissect --mount, --umount",
        _systemd_dissect,
        ("raw",),
        {"systemd-dissect": "systemd-container"},
        rounds=50,
    ),
    Peer("qemu-nbd -c, mount, umount, qemu-nbd -d", _qemu_nbd_window, ("qcow2",), _QEMU_NBD, ("nbd",), 20),
    Peer(
        "qemu-nbd, kpartx, mount, …: the classic driver",
        _classic_nbd,
        ("qcow2",),
        {**_QEMU_NBD, **_KPARTX},
        ("nbd", "device-mapper"),
        20,
    ),
    Peer(
        "nbdfuse, mount -o loop, umount",
        _nbdfuse,
        ("qcow2",),
        {"nbdfuse": "libnbd-bin", **_QEMU_NBD},
        ("loop", "fuse"),
        50,
    ),
    Peer(
        "guestmount, guestunmount",
        _guestmount,
        ("raw", "qcow2"),
        {"guestmount": "libguestfs-tools", "guestunmount": "libguestfs-tools"},
        (),
        1,
        in_lab=False,
    ),
)


def packages() -> list[str]:
    """The Debian packages that have the peers, and the kernel that guestmount boots where the machine has none."""
    names = dict.fromkeys(package for peer in PEERS for package in peer.programs.values())
    kernel = [] if any(Path("/boot").glob("vmlinuz*")) else [_kernel_package()]
    return [*names, *kernel]


def _kernel_package() -> str:
    architecture = programs.run(["dpkg", "--print-architecture"]).decode().strip()
    return "linux-image-generic" if Path("/etc/lsb-release").exists() else f"linux-image-cloud-{architecture}"
