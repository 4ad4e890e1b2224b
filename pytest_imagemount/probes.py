"""The probes behind the capabilities: each gives None, or the reason why the machine lacks the thing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .programs import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from .capabilities import Capabilities
    from .machine import Machine

    class OnMachine(Protocol):
        """What the probes ask that need no other capability."""

        @property
        def machine(self) -> Machine: ...


UML_ARCHITECTURES = ("x86_64",)
"""Machines, as uname(2) names them, for which Debian has User-Mode Linux that works here."""

_SUDO_TIMEOUT = 5.0  # seconds


def root(here: OnMachine) -> str | None:
    machine = here.machine
    if machine.uid != 0:
        return f"the user is {machine.uid}, not root"
    if machine.in_user_namespace():
        return "root of a user namespace (a rootless container) may not mount block devices"
    if not machine.may_administer():
        return "root lacks CAP_SYS_ADMIN here, as in a container without --privileged"
    return None


def sudo_usable(here: OnMachine) -> str | None:
    if here.machine.program("sudo") is None:
        return "sudo is not installed"
    if here.machine.status("NoNewPrivs") == "1":
        return "sudo cannot gain privilege: this process runs with no_new_privs"
    if here.machine.in_user_namespace():
        return "sudo gives no more than root of this user namespace (a rootless container)"
    return None


def sudo(here: Capabilities) -> str | None:
    if reason := sudo_usable(here):
        return reason
    from .errors import ProgramFailed

    path = here.machine.program("sudo") or "sudo"
    try:
        run([path, "-n", "true"], timeout=_SUDO_TIMEOUT)
    except ProgramFailed as error:
        said = error.stderr.splitlines()[0] if error.stderr else error.reason
        return f"`sudo -n true` failed: {said}"
    return None


def privileged(here: Capabilities) -> str | None:
    no_root = here["root"]
    if no_root is None or here.machine.uid == 0:
        return no_root
    no_sudo = here["sudo"]
    return f"{no_root}, and {no_sudo}" if no_sudo else None


def loop_driver(here: OnMachine) -> str | None:
    machine = here.machine
    if machine.kernel() < (5, 8):
        return f"the kernel {machine.release} has no LOOP_CONFIGURE; 5.8 or later is needed"
    loaded = machine.exists("sys/module/loop")
    if not loaded and (reason := machine.not_loadable("loop")):
        return f"the kernel has no loop driver: /sys/module/loop is absent and {reason}"
    if not machine.exists("dev/loop-control"):
        return _no_node("/dev/loop-control", "loop", loaded)
    # Where the module is not loaded yet, opening the node would load it.
    return _not_openable(machine, "dev/loop-control") if loaded and machine.uid == 0 else None


def nbd_driver(here: OnMachine) -> str | None:
    machine = here.machine
    if machine.exists("sys/module/nbd") or machine.exists("sys/block/nbd0"):
        return None
    if reason := machine.not_loadable("nbd"):
        return f"the kernel has no nbd module: /sys/module/nbd is absent and {reason}"
    return "the module nbd is not loaded"


def nbd_netlink(here: Capabilities) -> str | None:
    if here["nbd"] is not None:
        return "there is no nbd"
    from .engine.nbd.netlink import NbdNetlink

    # Only now: asked for a family that it does not know, the kernel would load its module.
    driver = NbdNetlink.open()
    if driver is None:
        return "this network namespace does not have the netlink family nbd, as in a container with its own network"
    driver.close()
    return None


def device(driver: Callable[[Capabilities], str | None], here: Capabilities) -> str | None:
    """A device needs its driver, and privilege."""
    return driver(here) or here["privileged"]


def fuse(here: OnMachine) -> str | None:
    machine = here.machine
    loaded = "\tfuse\n" in machine.read("proc/filesystems")
    if not loaded and (reason := machine.not_loadable("fuse")):
        return f"the kernel has no FUSE: /proc/filesystems does not list fuse and {reason}"
    if not machine.exists("dev/fuse"):
        return _no_node("/dev/fuse", "fuse", loaded)
    if loaded and (reason := _not_openable(machine, "dev/fuse")):
        return reason
    if reason := qemu(here):
        return reason
    if not _exports_fuse(Path(machine.program("qemu-storage-daemon") or "")):
        return "qemu-storage-daemon was built without FUSE exports"
    if machine.uid != 0 and machine.program("fusermount3") is None:
        return "fusermount3 is not installed, without which only root mounts by FUSE"
    return None


def _no_node(path: str, module: str, loaded: bool) -> str:
    return f"{path} is absent: " + (
        "the container does not show it" if loaded else f"the module {module} is not loaded"
    )


def _not_openable(machine: Machine, path: str) -> str | None:
    try:
        os.close(os.open(machine.root / path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/{path} cannot be opened: {error.strerror}"
    return None


def _exports_fuse(daemon: Path) -> bool:
    """Whether qemu-storage-daemon can export by FUSE: it names libfuse3, or, linked statically, has FUSE in its help.

    Reading that takes a tenth of a millisecond, asking ``--help`` five. A wrapper script is taken at its word.
    """
    import mmap

    with daemon.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return True
        with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
            return any(content.find(mark) >= 0 for mark in (b"libfuse3.so", b"[type=]fuse,"))


def md_driver(here: Capabilities) -> str | None:
    machine = here.machine
    if not machine.exists("sys/module/md_mod") and (reason := machine.not_loadable("md_mod")):
        return f"the kernel has no MD: /sys/module/md_mod is absent and {reason}"
    return None


def device_mapper(here: Capabilities) -> str | None:
    machine = here.machine
    loaded = "device-mapper" in machine.read("proc/misc")
    if not loaded and (reason := machine.not_loadable("dm_mod")):
        return f"the kernel has no device mapper: /proc/misc does not list it and {reason}"
    if not machine.exists("dev/mapper/control"):
        return _no_node("/dev/mapper/control", "dm_mod", loaded)
    return here["privileged"]


def filesystem(fstype: str, module: str, here: Capabilities) -> str | None:
    if any(line.split()[-1:] == [fstype] for line in here.machine.read("proc/filesystems").splitlines()):
        return None
    if reason := here.machine.not_loadable(module):
        return f"the kernel has no {fstype}: /proc/filesystems does not list it and {reason}"
    return None


def qemu(here: OnMachine) -> str | None:
    return programs(("qemu-storage-daemon",), here)


def programs(names: tuple[str, ...], here: OnMachine) -> str | None:
    absent = [name for name in names if here.machine.program(name) is None]
    if not absent:
        return None
    return f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} not installed"


def libblkid(here: Capabilities) -> str | None:
    import ctypes

    try:
        ctypes.CDLL("libblkid.so.1")
    except OSError:
        return "libblkid.so.1 is not installed"
    return None


def openat2(here: Capabilities) -> str | None:
    from .engine import syscalls

    folder = os.open(here.machine.root, os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(syscalls.openat2(folder, ".", os.O_PATH))
    except OSError as error:
        if here.machine.kernel() < (5, 6):
            return f"the kernel {here.machine.release} has no openat2; 5.6 or later is needed"
        return f"openat2 is refused, as by a container's seccomp filter: {error.strerror}"
    finally:
        os.close(folder)
    return None


def lab(here: Capabilities) -> str | None:
    if here.machine.architecture not in UML_ARCHITECTURES:
        return f"User-Mode Linux is packaged for x86_64, and this machine is {here.machine.architecture}"
    if "User Mode Linux" in here.machine.read("proc/cpuinfo"):
        return "this is a lab already, and User-Mode Linux does not run inside itself"
    return programs(("linux.uml",), here)
