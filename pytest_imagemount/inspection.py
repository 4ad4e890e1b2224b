"""``imagemount inspect``: what is in a disk image. Needs no privilege, mounts nothing, changes nothing.

Only ``--os``, which reads a file of the installed system, mounts it, read-only and by the helper as a test would.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .config import Settings
from .engine.image import identify
from .engine.reader import FileReader, Window
from .engine.tables.partition_table import Partition
from .engine.tables.read import read_table
from .engine.tables.selection import AUTO, select
from .engine.volumes.contents import LogicalVolumes, PhysicalVolume, Volume, logical_volumes, look
from .errors import PartitionNotFound
from .image_files import Files
from .inspection_text import render
from .terminal import Style
from .unpacking import Unpacker

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from .engine.image import Image, Layer
    from .engine.reader import Reader
    from .engine.superblock import Superblock
    from .engine.tables.read import PartitionTable
    from .image_files import BackingChoice
    from .inspection_os import System

__all__ = ["Choice", "Inspection", "Volume", "add_arguments", "inspect", "render", "run", "to_json"]

SCHEMA = 1
"""Of the JSON: raised when a key goes or changes its meaning, not when one comes."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What ``partition="auto"`` mounts, as far as no file system need be looked into for it.

    The number of a partition, ``lv:GROUP/VOLUME``, None for the image itself; or ``error``, why that is not clear.
    """

    partition: int | str | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in an image. Sizes are in bytes; ``allocated`` is what the file takes on its own file system, None for a
    block device. Of a compressed image, both are those of the compressed file.

    ``whole`` is what the disk as a whole holds, ``volumes`` what each partition that can hold something does, by its
    number. ``logical`` are the logical volumes of LVM. ``os`` is the installed system, None where it was not asked for.
    ``layers`` are the files that the image refers to; without folders that they may be in, one that does is refused.
    """

    path: Path
    format: str
    virtual_size: int
    file_size: int
    allocated: int | None
    table: PartitionTable | None
    whole: Volume
    volumes: dict[int, Volume]
    auto: Choice
    logical: LogicalVolumes = field(default_factory=LogicalVolumes)
    os: System | None = None
    layers: tuple[Layer, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``imagemount inspect``."""
    parser.add_argument("image", metavar="IMAGE", help="an image file, or a block device")
    parser.add_argument(
        "--format", help="the format that it must have: raw, qcow2, vmdk, ... (default: told from the content)"
    )
    parser.add_argument(
        "--os",
        action="store_true",
        help="show the installed system too, for which its root is mounted, read-only (root, or sudo -n)",
    )
    parser.add_argument(
        "--partition", help="where --os looks: a number, LABEL=..., ... (default: auto, see partition= of the fixture)"
    )
    parser.add_argument(
        "--architecture", help="whose root partition 'auto' takes: x86-64, arm64, ... (default: this machine's)"
    )
    parser.add_argument(
        "--backing",
        metavar="FOLDER",
        action="append",
        help="a folder that files may be in to which the image refers; give it again for more (default: none, an image "
        "that refers to another file is refused)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object; sizes and offsets are in bytes")


def run(args: argparse.Namespace) -> int:
    """Print what is in the image; 1 where the installed system was asked for and cannot be told.

    :raises ImageMountError: the image cannot be read, or is refused
    """
    backing = args.backing or "refuse"
    found = inspect(args.image, format=args.format, architecture=args.architecture, backing=backing, tell=_tell)
    if args.os or args.partition is not None:
        from .inspection_os import read_system

        where = args.partition or AUTO
        system = read_system(found, where, format=args.format, architecture=args.architecture, backing=backing)
        found = replace(found, os=system)
    print(json.dumps(to_json(found), indent=2) if args.json else render(found, Style.of(sys.stdout)))
    return 1 if found.os and found.os.error else 0


def inspect(
    image: str,
    *,
    format: str | None = None,
    architecture: str | None = None,
    backing: BackingChoice = "refuse",
    tell: Callable[[str], None] | None = None,
) -> Inspection:
    """What is in ``image``, a path; a relative one is looked for in the working folder, then in ``IMAGEMOUNT_PATH``.

    :param architecture: whose root partition ``"auto"`` takes; None is this machine's
    :param backing: folders that files may be in to which the image refers
    :param tell: shows the user a line, while a compressed image is unpacked
    :raises ImageNotFound: there is no such file
    :raises ImageUnreadable: the user may not read it
    :raises ImageInvalid: it is no image, or is damaged, or of another format than ``format``
    :raises ImageUnsafe: it refers to another file, which is not in those folders
    :raises RequestInvalid: there is no such architecture
    :raises ImageMountError: it cannot be read for another reason, all of which the message says
    """
    settings = Settings.from_environment()
    unpacker = Unpacker(settings.cache, settings.unpack_limit, tell or (lambda _: None))
    files = Files(image, settings.command_folders, "ro", format=format, backing=backing, unpacker=unpacker)
    with files.opened() as opened:
        first, *others = zip(opened.roles, opened.descriptors, strict=True)
        referred = [(role.removeprefix("file:"), descriptor) for role, descriptor in others]
        identified = identify(first[1], image, format, files=referred)
        file = opened.source.stat()
        with _disk(identified) as reader:
            table = read_table(reader, image)
            disk = Window(0, reader.size)
            whole = look(reader, disk, image)
            holders = [one for one in table.partitions if not one.container] if table else []
            volumes = {one.number: look(reader, one.window, image) for one in holders}
            by_window = {one.window: volumes[one.number].superblock for one in holders} | {disk: whole.superblock}
            places = {disk: "the disk"} if table is None else {one.window: f"partition {one.number}" for one in holders}
            physical = [PhysicalVolume(reader, window, place, by_window[window]) for window, place in places.items()]
            logical = logical_volumes(image, physical)
            return Inspection(
                path=opened.source,
                format=identified.format,
                virtual_size=reader.size,
                file_size=identified.file_size if identified.is_block_device else file.st_size,
                allocated=None if identified.is_block_device else file.st_blocks * 512,
                table=table,
                whole=whole,
                volumes=volumes,
                auto=_choose(table, disk, by_window, image, architecture, logical),
                logical=logical,
                layers=identified.layers,
            )


def to_json(found: Inspection) -> dict[str, Any]:
    """The inspection as JSON values; docs/inspect.md describes each key.

    ``schema``, ``image`` (absolute path), ``format``, ``virtual_size``, ``file_size``, ``allocated`` (null for a block
    device), ``refers_to`` (files that the image refers to: ``role``, ``name``, ``path``, ``format`` and their own
    ``refers_to``), ``filesystem`` (of the disk as a whole), ``table`` (null, or ``kind``, ``sector_size``, ``uuid``,
    ``warnings``, ``partitions``), ``volumes`` (those of LVM: ``name``, ``size``, ``kind``, ``filesystem``),
    ``volumes_error``, ``auto`` (``partition`` and ``error``), ``os`` (null where it was not asked for, or
    ``partition``, ``id``, ``version_id``, ``name``, ``pretty_name``, ``architecture``, ``error``). Each partition has
    ``number``, ``offset``, ``size``, ``type``, ``type_name``, ``uuid``, ``label``, ``logical``, ``container``,
    ``attributes`` and ``filesystem``. A file system is null where none is known, or has ``type``, ``usage``,
    ``mountable``, ``label``, ``uuid`` and ``version``; or ``error``, where it could not be read.
    """
    table = found.table.to_json() if found.table else None
    for partition in table["partitions"] if table else ():
        volume = found.volumes.get(partition["number"])
        partition["filesystem"] = _volume_json(volume)
    return {
        "schema": SCHEMA,
        "image": str(found.path),
        "format": found.format,
        "virtual_size": found.virtual_size,
        "file_size": found.file_size,
        "allocated": found.allocated,
        "refers_to": _layers_json(found.layers),
        "filesystem": _volume_json(found.whole),
        "table": table,
        "volumes": [
            {"name": one.name, "size": one.size, "kind": one.kind, "filesystem": _volume_json(one.content)}
            for one in found.logical.found
        ],
        "volumes_error": found.logical.error,
        "auto": {"partition": found.auto.partition, "error": found.auto.error},
        "os": found.os.to_json() if found.os else None,
    }


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _choose(
    table: PartitionTable | None,
    disk: Window,
    superblocks: dict[Window, Superblock | None],
    image: str,
    architecture: str | None,
    logical: LogicalVolumes,
) -> Choice:
    try:
        chosen = select(table, AUTO, image, probe=superblocks.get, architecture=architecture, volumes=lambda: logical)
    except PartitionNotFound as error:
        return Choice(None, error.reason)
    if chosen is not None:
        return Choice(chosen.number if isinstance(chosen, Partition) else chosen.name)
    held = superblocks[disk]
    if held is None or not held.mountable:
        return Choice(None, "the image itself holds no file system" + (f" ({held.type})" if held else ""))
    return Choice(None)


@contextmanager
def _disk(image: Image) -> Iterator[Reader]:
    """The bytes of the virtual disk: of a raw image from its file, of any other by a storage daemon of the user's."""
    if image.format == "raw":
        yield FileReader(image.fd, image.virtual_size)
        return
    from .engine.nbd.client import NbdReader, open_export
    from .engine.qemu.layers import open_image
    from .engine.undo import UndoStack
    from .engine.workspace import Workspace

    undo = UndoStack()
    try:
        with Workspace() as workspace:
            daemon = workspace.daemon
            export = daemon.export_nbd(open_image(daemon, image, undo, readonly=True), writable=False)
            with NbdReader(*open_export(daemon.nbd_socket, export)) as reader:
                yield reader
    finally:
        undo.run()  # the nodes are gone with the daemon: this lets go of the files


def _layers_json(layers: Iterable[Layer]) -> list[dict[str, Any]]:
    return [
        {
            "role": layer.reference.role,
            "name": layer.reference.name,
            "path": layer.image.name,
            "format": layer.image.format,
            "refers_to": _layers_json(layer.image.layers),
        }
        for layer in layers
    ]


def _volume_json(volume: Volume | None) -> dict[str, Any] | None:
    if volume is None:
        return None
    if volume.error:
        return {"error": volume.error}
    found = volume.superblock
    if found is None:
        return None
    return {name: getattr(found, name) for name in ("type", "usage", "mountable", "label", "uuid", "version")}
