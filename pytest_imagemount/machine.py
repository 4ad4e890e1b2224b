"""What the machine says about itself, read and never changed: /proc, /sys and /dev, kernel modules, programs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import programs

if TYPE_CHECKING:
    from typing import Self

_MODPROBE_FOLDERS = ("etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "usr/lib/modprobe.d")
# The second is where the kernel of `imagemount lab` has its modules, and it loads them from there itself.
_MODULE_FOLDERS = ("lib/modules", "usr/lib/uml/modules")
_CAP_SYS_ADMIN = 1 << 21
_ALL_UIDS = 2**32 - 1


class Machine(NamedTuple):
    """One machine, or, in tests, a folder that looks like one.

    ``uid`` is the effective user, ``release`` and ``architecture`` are those of uname(2).
    """

    # Not a dataclass: making one costs a millisecond, and the report header needs this in every pytest run.
    root: Path
    uid: int
    release: str
    architecture: str

    @classmethod
    def this(cls) -> Self:
        """The machine that this process runs on, for the user that it runs as."""
        system = os.uname()
        return cls(Path("/"), os.geteuid(), system.release, system.machine)

    def read(self, path: str) -> str:
        """The text of the file ``path`` (no leading slash), empty where there is none."""
        try:
            return (self.root / path).read_text("utf-8", "replace")
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def program(self, name: str) -> str | None:
        """Full path of program ``name``, or None."""
        return programs.find_program(name, None if self.root == Path("/") else self.root)

    def kernel(self) -> tuple[int, int]:
        """The kernel's version: ``(6, 1)`` of release ``6.1.0-30-amd64``."""
        found = re.match(r"(\d+)\.(\d+)", self.release)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    def status(self, name: str) -> str:
        """A line of /proc/self/status, such as ``NoNewPrivs``; empty where the kernel does not give it."""
        found = re.search(rf"^{name}:\s*(\S+)", self.read("proc/self/status"), re.MULTILINE)
        return found[1] if found else ""

    def in_user_namespace(self) -> bool:
        """Whether user ids here are not the machine's own (user_namespaces(7)): a rootless container."""
        mapping = self.read("proc/self/uid_map").split()
        return len(mapping) >= 3 and mapping[:3] != ["0", "0", str(_ALL_UIDS)]

    def may_administer(self) -> bool:
        """Whether this process holds CAP_SYS_ADMIN, without which nothing is mounted."""
        held = self.status("CapEff")
        return not held or bool(int(held, 16) & _CAP_SYS_ADMIN)

    def not_loadable(self, module: str) -> str | None:
        """Why modprobe could not load ``module``, or None when it could, or need not because it is built in.

        Answers as ``modprobe -n`` does, from the files that modprobe reads: nothing is started, nothing loaded.
        """
        name = module.replace("_", "[-_]")
        if re.search(rf"/{name}\.ko", self._module_table("builtin")):
            return None
        if not re.search(rf"/{name}\.ko", self._module_table("dep")):
            return "modprobe finds none"
        if self.read("proc/sys/kernel/modules_disabled").strip() == "1":
            return "loading of modules is switched off (kernel.modules_disabled is 1)"
        for file in self._modprobe_files():
            if re.search(rf"^\s*install\s+{name}\s+\S*/(true|false)\b", self.read(file), re.MULTILINE):
                return f"/{file} forbids to load it"
        return None

    def _module_table(self, kind: str) -> str:
        return "".join(self.read(f"{folder}/{self.release}/modules.{kind}") for folder in _MODULE_FOLDERS)

    def _modprobe_files(self) -> list[str]:
        folders = [self.root / folder for folder in _MODPROBE_FOLDERS]
        files = [file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.conf"))]
        return [str(file.relative_to(self.root)) for file in files]
