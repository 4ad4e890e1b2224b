"""Which way to make a block device: one table, and the choice for an image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CapabilityMissing, RequestInvalid
from .privilege import missing_privilege

if TYPE_CHECKING:
    from .image import Image

_DRIVERS = {
    "loop": ("pytest_imagemount.engine.loop_mount", "LoopMount"),
    "nbd": ("pytest_imagemount.engine.nbd_mount", "NbdMount"),
    "fuse": ("pytest_imagemount.engine.fuse_mount", "FuseMount"),
}


def choose(backend: str, image: Image, mode: str) -> tuple[str, str]:
    """Module and class name of the driver. The module is imported only when it is used.

    :raises RequestInvalid: an unknown backend, or loop for what loop cannot do
    :raises CapabilityMissing: ``nbd`` or ``fuse`` was asked for, or is needed, and this kernel has it not
    """
    if backend == "auto":
        backend = "loop" if _loop_serves(image, mode) else "nbd" if nbd_missing() is None else "fuse"
    if backend not in _DRIVERS:
        reason = f"must be one of auto, {', '.join(_DRIVERS)}"
        raise RequestInvalid(argument="backend", value=repr(backend), reason=reason)
    if backend == "loop" and not _loop_serves(image, mode):
        what = f"format {image.format}" if image.format != "raw" else f"mode {mode!r}"
        reason = f"loop reads raw images only, in mode 'ro' or 'rw'; {what} needs nbd or fuse"
        raise RequestInvalid(argument="backend", value="'loop'", reason=reason)
    if backend == "nbd" and (missing := nbd_missing()):
        hint = "run `modprobe nbd max_part=0`, use backend='fuse', or run the tests in `imagemount lab`"
        raise CapabilityMissing(capability="nbd", reason=missing, hint=hint)
    if backend == "fuse" and not Path("/dev/fuse").exists():
        hint = "run `modprobe fuse`, start the container with --device /dev/fuse, or use backend='nbd'"
        no_fuse = CapabilityMissing(capability="fuse", reason="/dev/fuse does not exist", hint=hint)
        raise missing_privilege() or no_fuse
    return _DRIVERS[backend]


def nbd_missing(root: Path = Path("/")) -> str | None:
    """Why the kernel has no NBD, or None when it has."""
    if (root / "sys/module/nbd").is_dir() or (root / "sys/block/nbd0").exists():
        return None
    return "the kernel module nbd is not loaded"


def _loop_serves(image: Image, mode: str) -> bool:
    return image.format == "raw" and mode != "overlay"
