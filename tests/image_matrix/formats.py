"""Image files of the matrix: a disk in each format, compressed, or in parts."""

from __future__ import annotations

import bz2
import gzip
import lzma
from typing import TYPE_CHECKING

from pytest_imagemount.programs import run
from tests.foreign_writers import WRITERS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "raw.gz": lambda data: gzip.compress(data, 1),
    "raw.xz": lambda data: lzma.compress(data, preset=0),
    "raw.bz2": lambda data: bz2.compress(data, 1),
}
_PROGRAMS = {"raw.zst": "zstd", "raw.lz4": "lz4"}
# Without it qemu rounds the size to cylinders, and the spare GPT is not at the end.
_OPTIONS = {"vpc": ("-o", "force_size=on")}
_PARTS = 3
_CHECKED = frozenset({"qcow2", "qed", "vdi", "vhdx", "parallels", "vmdk"})


def make_image(format: str, disk: Path, path: Path) -> list[Path]:
    """Write the raw ``disk`` in that format; ``disk`` may become it.

    :param path: of the image; parts get numbers behind it
    :returns: every file of it, that which the fixture is given first
    """
    if format == "raw":
        return [disk.rename(path)]
    if format == "raw.001":
        data = disk.read_bytes()
        size = -(-len(data) // _PARTS)
        parts = [path.with_name(f"{path.name}.{number:03}") for number in range(1, _PARTS + 1)]
        for number, part in enumerate(parts):
            part.write_bytes(data[number * size : (number + 1) * size])
        return parts
    if format in _COMPRESSORS:
        path.write_bytes(_COMPRESSORS[format](disk.read_bytes()))
    elif format in _PROGRAMS:
        run([_PROGRAMS[format], "-1", "-q", str(disk), *(["-o"] if format == "raw.zst" else []), str(path)])
    elif format in WRITERS:
        path.write_bytes(WRITERS[format](disk.read_bytes()))
    else:
        run(["qemu-img", "convert", "-f", "raw", "-O", format, *_OPTIONS.get(format, ()), str(disk), str(path)])
    disk.unlink()
    return [path]


def check(format: str, path: Path) -> None:
    """Return when what the format says of itself is consistent, or when qemu cannot tell.

    :raises ProgramFailed: qemu-img found it to be not so
    """
    if format in _CHECKED:
        run(["qemu-img", "check", "-q", "-f", format, str(path)])


def driver(format: str) -> str:
    """What the fixture calls the format."""
    return format.partition(".")[0]
