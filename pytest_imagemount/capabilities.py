"""What this machine can do: one mapping from the name of a capability to None, or to the reason why it is missing.

The report header, skip reasons, test markers and ``imagemount doctor`` all read it. A probe changes nothing on the
machine (it loads no module and attaches no device), takes milliseconds, cannot hang, and runs only when its capability
is asked for, at most once in a process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import NamedTuple

from . import probes
from .errors import CapabilityMissing
from .machine import Machine
from .programs import PACKAGES


class Capabilities(Mapping[str, "str | None"]):
    """The mapping for one machine. Each value is probed when it is first read."""

    def __init__(self, machine: Machine | None = None) -> None:
        self.machine = machine or Machine.this()
        self._known: dict[str, str | None] = {}

    def __getitem__(self, name: str) -> str | None:
        if name not in self._known:
            try:
                self._known[name] = TABLE[name].probe(self)
            except (OSError, ValueError) as error:
                self._known[name] = f"it could not be found out: {error}"
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(TABLE)

    def __len__(self) -> int:
        return len(TABLE)


class Capability(NamedTuple):
    """Something that a machine may be able to do.

    ``gives`` says what it is for, ``get`` how to come by it; ``programs`` are those whose packages ``imagemount doctor
    --install`` installs.
    """

    name: str
    group: str
    gives: str
    get: str
    probe: Callable[[Capabilities], str | None]
    programs: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        """The Debian packages of its programs."""
        return tuple(dict.fromkeys(PACKAGES[program] for program in self.programs))


@cache
def capabilities() -> Capabilities:
    """The capabilities of this machine."""
    return Capabilities()


def missing(name: str) -> str | None:
    """Why this machine lacks capability ``name``, or None when it has it.

    :raises LookupError: there is no capability of that name
    """
    if name not in TABLE:
        raise LookupError(f"no capability is called {name!r}; there are: {', '.join(TABLE)}")
    return capabilities()[name]


def require(*names: str) -> None:
    """Return when this machine has every capability of ``names``.

    :raises CapabilityMissing: it lacks one
    :raises LookupError: there is no capability of that name
    """
    for name in names:
        if reason := missing(name):
            raise CapabilityMissing(capability=name, reason=reason, hint=remedy(capabilities(), name))


def remedy(here: Capabilities, name: str) -> str:
    """How to come by capability ``name``; where only privilege is wanting, how to come by that."""
    wants_privilege = here[name] is not None and here[name] == here["privileged"]
    return TABLE["privileged" if wants_privilege and name != "root" else name].get


def absent_programs(here: Capabilities) -> tuple[str, ...]:
    """Every program that this machine lacks and could have, in alphabetical order."""
    unavailable = () if here.machine.architecture in probes.UML_ARCHITECTURES else TABLE["lab"].programs
    wanted = {program for capability in TABLE.values() for program in capability.programs} - {*unavailable}
    return tuple(sorted(program for program in wanted if here.machine.program(program) is None))


def absent_packages(here: Capabilities) -> tuple[str, ...]:
    """The Debian packages of :func:`absent_programs`, in alphabetical order."""
    return tuple(sorted({PACKAGES[program] for program in absent_programs(here)}))


_ROOT = "run as root (a container with --privileged)"
_LAB_HAS_IT = "if this kernel has no such module, run the tests in `imagemount lab`, whose kernel has it"


def _tool(name: str, group: str, gives: str, *programs: str) -> Capability:
    """A capability that is there when its programs are, which are ``name`` alone where none are given."""
    programs = programs or (name,)
    package = PACKAGES[programs[0]]
    return Capability(name, group, gives, f"install package {package}", partial(probes.programs, programs), programs)


def _maker(name: str, gives: str) -> Capability:
    """A program that is there or not, and that nobody is told to install."""
    return _tool(name, "Volumes", gives)._replace(programs=())


def _filesystem(fstype: str, module: str) -> Capability:
    get = f"run `modprobe {module}`; {_LAB_HAS_IT}"
    probe = partial(probes.filesystem, fstype, module)
    return Capability(fstype, "File systems", f"mount {fstype}", get, probe)


TABLE = {
    capability.name: capability
    for capability in (
        Capability("root", "Privilege", "mount directly", _ROOT, probes.root),
        Capability(
            "sudo",
            "Privilege",
            "mount by a helper process that sudo starts",
            "install package sudo, and let the user run `sudo -n` (NOPASSWD in sudoers)",
            probes.sudo,
        ),
        Capability(
            "privileged",
            "Privilege",
            "mount one way or the other",
            f"{_ROOT}, let the user run `sudo -n`, or run the tests in `imagemount lab`, which needs neither",
            probes.privileged,
        ),
        Capability(
            "loop",
            "Block devices",
            "raw images, and what FUSE exports",
            f"run `modprobe loop`, or start the container with --privileged; {_LAB_HAS_IT}",
            partial(probes.device, probes.loop_driver),
        ),
        Capability(
            "nbd",
            "Block devices",
            "qcow2 and all other formats",
            f"run `modprobe nbd max_part=0`; {_LAB_HAS_IT}; without it FUSE serves",
            partial(probes.device, probes.nbd_driver),
        ),
        Capability(
            "nbd-netlink",
            "Block devices",
            "NBD devices in milliseconds, gone at the last unmount",
            "have nbd, and start the container with --network=host; without it a thread serves by ioctl",
            probes.nbd_netlink,
        ),
        Capability(
            "fuse",
            "Block devices",
            "qcow2 and all other formats where there is no NBD",
            "run `modprobe fuse`, start the container with --device /dev/fuse, install packages qemu-system-common "
            "and fuse3",
            probes.fuse,
            ("qemu-storage-daemon", "fusermount3"),
        ),
        Capability(
            "device-mapper",
            "Block devices",
            "adopt devices of /dev/mapper",
            f"run `modprobe dm_mod`; {_LAB_HAS_IT}",
            probes.device_mapper,
        ),
        Capability(
            "md",
            "Volumes",
            "arrays of MD RAID",
            f"run `modprobe md_mod`; {_LAB_HAS_IT}",
            partial(probes.device, probes.md_driver),
        ),
        _tool("cryptsetup", "Volumes", "open LUKS volumes"),
        # Nobody needs these to mount, but who makes such images, as our own tests do.
        _maker("veritysetup", "make images with dm-verity"),
        _maker("lvm", "make images with LVM"),
        _maker("mdadm", "make images with MD RAID"),
        _tool("qemu", "Image formats", "read and write formats other than raw", "qemu-storage-daemon"),
        _tool("qemu-img", "Image formats", "build formats other than raw", "qemu-img", "qemu-nbd"),
        _tool("zstd", "Image formats", "unpack images that zstd compressed"),
        _tool("lz4", "Image formats", "unpack images that lz4 compressed"),
        *(_filesystem(fstype, fstype) for fstype in ("ext4", "xfs", "btrfs", "vfat", "squashfs", "erofs")),
        _filesystem("iso9660", "isofs"),
        _filesystem("overlay", "overlay"),
        _tool("mke2fs", "Building images", "make ext4"),
        _tool("debugfs", "Building images", "set owners and modes in ext4"),
        _tool("mkfs.vfat", "Building images", "make vfat"),
        _tool("mtools", "Building images", "put files into vfat", "mcopy", "mmd"),
        _tool("mkfs.xfs", "Building images", "make xfs"),
        _tool("mkfs.btrfs", "Building images", "make btrfs"),
        _tool("mksquashfs", "Building images", "make squashfs"),
        _tool("mkfs.erofs", "Building images", "make erofs"),
        _tool("mkswap", "Building images", "make swap"),
        _tool("sfdisk", "Building images", "write partition tables with a second opinion"),
        Capability(
            "kpartx",
            "System",
            "partition nodes by the device mapper, as other programs make them",
            "install package kpartx",
            partial(probes.programs, ("kpartx",)),
        ),
        Capability(
            "libblkid",
            "System",
            "types and labels of file systems",
            "install package libblkid1",
            probes.libblkid,
        ),
        Capability(
            "openat2",
            "System",
            "paths that stay inside the image",
            "use Linux 5.6 or later, and a container runtime that lets openat2 through",
            probes.openat2,
        ),
        Capability(
            "lab",
            "System",
            "a kernel of our own, with NBD, and without root",
            "install package user-mode-linux, on x86-64",
            probes.lab,
            ("linux.uml",),
        ),
    )
}
"""Every capability by its name, in the order in which they are shown."""
