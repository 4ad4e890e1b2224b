"""What the kernel says of an NBD device, read from sysfs.

``/sys/block/nbdN/pid`` is there while the device is connected: the process that asked for it. ``backend`` (Linux 5.14)
carries the identifier that a netlink client gave. Source: drivers/block/nbd.c.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

SYS = Path("/sys")


@dataclass(frozen=True, slots=True)
class NbdState:
    """One device as the kernel sees it.

    :ivar exists: False: the module did not make it yet; a netlink CONNECT with its number does
    :ivar pid: who connected it, as the first pid namespace counts; None while it is not connected
    :ivar backend: the identifier of the connection, empty where there is none or the kernel is older than 5.14
    :ivar sectors: its size in units of 512 bytes
    """

    exists: bool
    pid: int | None = None
    backend: str = ""
    sectors: int = 0

    @property
    def idle(self) -> bool:
        """Nobody has connected it."""
        return self.pid is None and not self.sectors


def kernel_state(index: int, sys_root: Path = SYS) -> NbdState:
    """The state of ``/dev/nbd<index>``."""
    folder = sys_root / "block" / f"nbd{index}"
    if not folder.is_dir():
        return NbdState(exists=False)
    pid, sectors = _read(folder / "pid"), _read(folder / "size")
    return NbdState(
        exists=True,
        pid=int(pid) if pid else None,
        backend=_read(folder / "backend"),
        sectors=int(sectors or 0),
    )


def module_loaded(sys_root: Path = SYS) -> bool:
    """Whether the kernel has its NBD driver ready."""
    return (sys_root / "module" / "nbd").is_dir() or (sys_root / "block" / "nbd0").is_dir()


def _read(path: Path) -> str:
    # The files come and go with the connection: missing is an answer.
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
