"""``imagemount inspect``: what is in a disk image. Needs no privilege, mounts nothing, changes nothing."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .engine.image import identify
from .engine.reader import FileReader, Window
from .engine.superblock import probe, probe_reader
from .engine.tables.read import read_table
from .engine.text import human_size, printable
from .errors import ImageMountError
from .image_files import find_image, open_image
from .terminal import Style, exact_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from .engine.image import Image
    from .engine.reader import Reader
    from .engine.superblock import Superblock
    from .engine.tables.read import PartitionTable


@dataclass(frozen=True, slots=True)
class Volume:
    """What a run of bytes holds: a superblock, or None where none is known, or why it could not be read."""

    superblock: Superblock | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in an image. Sizes are in bytes; ``allocated`` is what the file takes on its own file system, None for a
    block device.

    ``whole`` is what the disk as a whole holds, ``volumes`` what each partition that can hold something does, by its
    number. That there is an inspection means that the image refers to no other file: one that does is refused.
    """

    path: Path
    format: str
    virtual_size: int
    file_size: int
    allocated: int | None
    table: PartitionTable | None
    whole: Volume
    volumes: dict[int, Volume]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``imagemount inspect``."""
    parser.add_argument("image", metavar="IMAGE", help="an image file, or a block device")
    parser.add_argument(
        "--format", help="the format that it must have: raw, qcow2, vmdk, ... (default: told from the content)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object; sizes and offsets are in bytes")


def run(args: argparse.Namespace) -> int:
    """Print what is in the image.

    :raises ImageMountError: the image cannot be read, or is refused
    """
    found = inspect(args.image, format=args.format)
    print(json.dumps(to_json(found), indent=2) if args.json else render(found, Style.of(sys.stdout)))
    return 0


def inspect(image: str, *, format: str | None = None) -> Inspection:
    """What is in ``image``, a path.

    :raises ImageNotFound: there is no such file
    :raises ImageUnreadable: the user may not read it
    :raises ImageInvalid: it is no image, or is damaged, or of another format than ``format``
    :raises ImageUnsafe: it refers to another file
    :raises ImageMountError: it cannot be read for another reason, all of which the message says
    """
    path = find_image(image, ())
    fd = open_image(path, image, "ro")
    try:
        identified = identify(fd, image, format)
        with _disk(identified) as reader:
            table = read_table(reader, image)
            whole = _look(reader, Window(0, reader.size), image)
            holders = [one for one in table.partitions if not one.container] if table else []
            volumes = {one.number: _look(reader, one.window, image) for one in holders}
            return Inspection(
                path=path,
                format=identified.format,
                virtual_size=reader.size,
                file_size=identified.file_size,
                allocated=None if identified.is_block_device else os.fstat(fd).st_blocks * 512,
                table=table,
                whole=whole,
                volumes=volumes,
            )
    finally:
        os.close(fd)


def to_json(found: Inspection) -> dict[str, Any]:
    """The inspection as JSON values.

    Keys: ``image`` (absolute path), ``format``, ``virtual_size``, ``file_size``, ``allocated`` (null for a block
    device), ``filesystem`` (of the disk as a whole), ``table`` (null, or ``kind``, ``sector_size``, ``uuid``,
    ``warnings``, ``partitions``). Each partition has ``number``, ``offset``, ``size``, ``type``, ``type_name``,
    ``uuid``, ``label``, ``logical`` and ``filesystem``. A file system is null where none is known, or has ``type``,
    ``usage``, ``label``, ``uuid`` and ``version``; or ``error``, where it could not be read.
    """
    table = found.table.to_json() if found.table else None
    for partition in table["partitions"] if table else ():
        volume = found.volumes.get(partition["number"])
        partition["filesystem"] = _volume_json(volume) if volume else None
    return {
        "image": str(found.path),
        "format": found.format,
        "virtual_size": found.virtual_size,
        "file_size": found.file_size,
        "allocated": found.allocated,
        "filesystem": _volume_json(found.whole),
        "table": table,
    }


def render(found: Inspection, style: Style) -> str:
    """The inspection as text that is safe to print."""
    allocated = "" if found.allocated is None else f", {human_size(found.allocated)} allocated"
    lines = [
        style.bold(printable(str(found.path))),
        f"  format        {found.format}",
        f"  virtual size  {exact_size(found.virtual_size)}",
        f"  file size     {exact_size(found.file_size)}{allocated}",
        "  safety        refers to no other file",
        "",
        *(found.table.render().splitlines() if found.table else ["No partition table"]),
        "",
        style.bold("Content"),
    ]
    rows = [(str(number), volume) for number, volume in found.volumes.items()]
    if not rows or found.whole.superblock:
        rows.insert(0, ("image", found.whole))
    width = max(len(place) for place, _ in rows)
    lines += [f"  {place:>{width}}  {_describe(volume)}" for place, volume in rows]
    return "\n".join(lines)


@contextmanager
def _disk(image: Image) -> Iterator[Reader]:
    """The bytes of the virtual disk: of a raw image from its file, of any other by a storage daemon of the user's."""
    if image.format == "raw":
        yield FileReader(image.fd, image.virtual_size)
        return
    from .engine.nbd.client import NbdReader, open_export
    from .engine.workspace import Workspace

    with Workspace() as workspace:
        daemon = workspace.daemon
        node = daemon.add_image(image.fd, image.format, image=image.name, readonly=True)
        export = daemon.export_nbd(node, writable=False)
        with NbdReader(*open_export(daemon.nbd_socket, export)) as reader:
            yield reader


def _look(reader: Reader, window: Window, image: str) -> Volume:
    try:
        if isinstance(reader, FileReader):
            return Volume(probe(reader.fd, window, image=image))
        return Volume(probe_reader(reader, window, image=image))
    except ImageMountError as error:
        return Volume(None, str(error))


def _volume_json(volume: Volume) -> dict[str, Any] | None:
    if volume.error:
        return {"error": volume.error}
    found = volume.superblock
    if found is None:
        return None
    return {name: getattr(found, name) for name in ("type", "usage", "label", "uuid", "version")}


def _describe(volume: Volume) -> str:
    found = volume.superblock
    if found is None:
        return printable(volume.error or "nothing that is known")
    words = [found.type if found.usage == "filesystem" else f"{found.type} ({found.usage}, not mountable)"]
    words += [f"version {found.version}"] if found.version else []
    words += [f'label "{found.label}"'] if found.label else []
    words += [f"uuid {found.uuid}"] if found.uuid else []
    return printable("  ".join(words))
