"""A folder that looks like a machine to the probes of ``pytest_imagemount.capabilities``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_imagemount.capabilities import TABLE, Capabilities
from pytest_imagemount.machine import Machine
from pytest_imagemount.programs import PACKAGES

if TYPE_CHECKING:
    from pathlib import Path

RELEASE = "6.1.0-30-amd64"


class FakeMachine:
    """Debian on x86-64 with everything that the package can use; tests take away from it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
        self.write("proc/filesystems", "".join(f"{line}\n" for line in ("nodev\tproc", "nodev\tfuse", "\text4")))
        self.write("proc/misc", "237 loop-control\n236 device-mapper\n229 fuse\n")
        self.write("proc/self/uid_map", "         0          0 4294967295\n")
        self.status(NoNewPrivs="0", CapEff="000001ffffffffff")
        self.modules("xfs", "btrfs", "vfat", "squashfs", "erofs", "isofs", "overlay", "md_mod")
        for module in ("loop", "nbd"):
            self.path(f"sys/module/{module}").mkdir(parents=True)
        for node in ("loop-control", "fuse", "mapper/control"):
            self.write(f"dev/{node}", "")
        for program in {*PACKAGES, "apt-get", "apt-cache"} - {"qemu-storage-daemon"}:
            self.program(program)
        self.program("qemu-storage-daemon", b"\x7fELF libfuse3.so.3\0")

    def path(self, name: str) -> Path:
        return self.root / name

    def write(self, name: str, text: str) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def remove(self, name: str) -> None:
        path = self.path(name)
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()

    def status(self, **values: str) -> None:
        """What /proc/self/status says."""
        self.write("proc/self/status", "".join(f"{name}:\t{value}\n" for name, value in values.items()))

    def modules(self, *names: str, builtin: bool = False) -> None:
        """The kernel modules that there are, or those that are built in."""
        lines = "".join(f"kernel/some/{name}.ko{'' if builtin else '.xz: kernel/lib/other.ko.xz'}\n" for name in names)
        self.write(f"lib/modules/{RELEASE}/modules.{'builtin' if builtin else 'dep'}", lines)

    def program(self, name: str, content: bytes = b"#!/bin/sh\nexit 0\n") -> None:
        path = self.path(f"usr/bin/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o755)

    def remove_program(self, *names: str) -> None:
        for name in names:
            self.remove(f"usr/bin/{name}")

    def remove_all_programs(self) -> None:
        """Leave none of those that the capabilities look for."""
        made_by_others = {"kpartx", "lvm", "mdadm", "veritysetup"}
        for name in {program for capability in TABLE.values() for program in capability.programs} | made_by_others:
            self.remove(f"usr/bin/{name}")

    def capabilities(self, *, uid: int = 0, release: str = RELEASE, architecture: str = "x86_64") -> Capabilities:
        """The capabilities of the machine as it is now."""
        return Capabilities(Machine(self.root, uid, release, architecture))
