"""build_image: from a description to an image file."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .. import programs
from ..errors import ImageMountError, RequestInvalid
from .identity import Seed, disk_signature, gpt_type, mbr_type, parse_uuid
from .layout import Extent, Layout, plan
from .partition import Partition
from .payload import make_payload
from .sizes import parse_size
from .staging import copy_sparse
from .tables import GptEntry, MbrEntry, write_gpt, write_mbr

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from .content import Content

FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "parallels")
"""The formats of image files, by the names that qemu gives them."""

SECTOR_SIZES = (512, 4096)

# Without it qemu rounds the size of a vpc image to cylinders: the disk grows, and the spare GPT is not at its end.
_FORMAT_DEFAULTS = {"vpc": {"force_size": "on"}}


def build_image(
    path: str | os.PathLike[str],
    *,
    format: str = "raw",
    table: str | None = None,
    partitions: Iterable[Partition | Mapping[str, object]] = (),
    fstype: str | None = None,
    content: Content | None = None,
    raw: bytes | None = None,
    size: int | str | None = None,
    label: str | None = None,
    uuid: str | UUID | None = None,
    mkfs_options: Sequence[str] = (),
    sector_size: int = 512,
    format_options: Mapping[str, object] | None = None,
) -> Path:
    """Build a disk image at ``path``, replacing a file that is there, and return ``path``. Needs no privilege.

    Without ``table``, ``fstype`` (or ``raw`` bytes, or zeros) fills the whole image, and ``content``, ``label``,
    ``uuid`` and ``mkfs_options`` are those of the file system. With ``table`` (``"gpt"`` or ``"mbr"``), ``partitions``
    lists :class:`Partition` or mappings of its fields, and ``uuid`` is that of the disk (in an MBR the 32-bit signature
    as eight hexadecimal digits). They are numbered from 1; in an MBR with more than four, 1 to 3 and then from 5.

    :param size: of the whole disk: bytes or ``"64M"``; computed from the content when not given
    :param sector_size: 512 or 4096 bytes; the unit of the table and the least block of the file systems
    :param format: one of :data:`FORMATS`; ``format_options`` are qemu-img's ``-o`` (``{"compat": "0.10"}``)
    :raises RequestInvalid: an argument, or the content, is not as it must be; the message says what to give
    :raises ProgramFailed: a program that is needed failed or is not installed

    Equal arguments give equal bytes, UUIDs and times included (by default 2020-01-01, or SOURCE_DATE_EPOCH), except in
    btrfs, whose mkfs makes up numbers of its own, and in formats that carry a time or UUID of their own (vmdk, vdi,
    vpc, vhdx); in squashfs they are equal for one user, whose id stays in its table of ids. A build that fails leaves
    nothing.
    """
    target = Path(path)
    listed = [Partition.of(partition) for partition in partitions]
    _check_image(target, format, table, listed, sector_size, format_options)
    if table is None:
        whole = Partition(
            fstype=fstype, content=content, raw=raw, size=size, label=label, fs_uuid=uuid, mkfs_options=mkfs_options
        )
        parts = [whole]
    else:
        own = {"fstype": fstype, "content": content, "raw": raw, "label": label, "mkfs_options": mkfs_options or None}
        for name, given in own.items():
            if given is not None:
                reason = "is for an image without a partition table; give it to one of the partitions"
                raise RequestInvalid(argument=name, value=repr(given), reason=reason)
        parts = listed
    try:
        for part in parts:
            part.check(table)
        with tempfile.TemporaryDirectory(prefix=".imagemount-", dir=target.parent) as folder:
            disk = Path(folder) / "disk"
            _build_raw(disk, Path(folder), table, parts, size, uuid, sector_size)
            _convert(disk, format, format_options or {}).replace(target)
    except ImageMountError as error:
        error.add_note(f"while building image {str(target)!r}")
        raise
    return target


class ImageFactory:
    """Builds images in one folder. Call it with the arguments of :func:`build_image` to get the path of a new one."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._count = 0

    def __call__(
        self,
        name: str | None = None,
        *,
        format: str = "raw",
        table: str | None = None,
        partitions: Iterable[Partition | Mapping[str, object]] = (),
        fstype: str | None = None,
        content: Content | None = None,
        raw: bytes | None = None,
        size: int | str | None = None,
        label: str | None = None,
        uuid: str | UUID | None = None,
        mkfs_options: Sequence[str] = (),
        sector_size: int = 512,
        format_options: Mapping[str, object] | None = None,
    ) -> Path:
        """The path of a new image, called ``name``, or ``image-1.raw`` and so on when that is None.

        :raises RequestInvalid: ``name`` is taken or is no plain file name; and as :func:`build_image`
        """
        path = self._new_path(name, format)
        return build_image(
            path,
            format=format,
            table=table,
            partitions=partitions,
            fstype=fstype,
            content=content,
            raw=raw,
            size=size,
            label=label,
            uuid=uuid,
            mkfs_options=mkfs_options,
            sector_size=sector_size,
            format_options=format_options,
        )

    def _new_path(self, name: str | None, format: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        if name is None:
            while True:
                self._count += 1
                path = self.folder / f"image-{self._count}.{format}"
                if not path.exists():
                    return path
        if name in {"", ".", ".."} or "/" in name:
            raise RequestInvalid(argument="name", value=repr(name), reason="give a plain file name, such as 'disk.raw'")
        path = self.folder / name
        if path.exists():
            raise RequestInvalid(argument="name", value=repr(name), reason=f"{path} exists; give another name")
        return path


def _check_image(
    target: Path,
    format: str,
    table: str | None,
    partitions: list[Partition],
    sector_size: int,
    format_options: Mapping[str, object] | None,
) -> None:
    if format not in FORMATS:
        raise RequestInvalid(argument="format", value=repr(format), reason=f"is not one of: {', '.join(FORMATS)}")
    if format == "raw" and format_options:
        raise RequestInvalid(argument="format_options", value=repr(format_options), reason="a raw image has no options")
    if table not in {None, "gpt", "mbr"}:
        raise RequestInvalid(argument="table", value=repr(table), reason="is not 'gpt', 'mbr' or None")
    if table is None and partitions:
        raise RequestInvalid(argument="partitions", value="…", reason="give table='gpt' or table='mbr' with them")
    if table == "gpt" and len(partitions) > 128:
        raise RequestInvalid(argument="partitions", value=str(len(partitions)), reason="a GPT holds 128 here")
    if sector_size not in SECTOR_SIZES:
        raise RequestInvalid(argument="sector_size", value=repr(sector_size), reason="is not 512 or 4096 bytes")
    if not target.parent.is_dir():
        raise RequestInvalid(
            argument="path", value=repr(str(target)), reason="its folder does not exist; make it first"
        )
    if target.is_dir():
        raise RequestInvalid(argument="path", value=repr(str(target)), reason="is a folder; give the path of a file")


def _build_raw(
    disk: Path,
    folder: Path,
    table: str | None,
    parts: list[Partition],
    size: int | str | None,
    uuid: str | UUID | None,
    sector_size: int,
) -> None:
    seed = _seed(table, sector_size, parts)
    payloads = []
    for number, part in enumerate(parts, 1):
        what = "the whole image" if table is None else f"item {number} of partitions"
        payload = folder / f"payload-{number}"
        place = folder / f"scratch-{number}"
        taken = make_payload(part, payload, place, seed=seed, what=what, sector_size=sector_size)
        start = None if part.start is None else parse_size(part.start, "start")
        payloads.append((payload, Extent(taken, start)))
    with disk.open("xb") as file:
        if table is None:
            copy_sparse(payloads[0][0], file)
            return
        total = None if size is None else parse_size(size)
        layout = plan(table, [extent for _, extent in payloads], total, sector_size)
        file.truncate(layout.size)
        for (payload, _), (_, window) in zip(payloads, layout.windows, strict=True):
            copy_sparse(payload, file, window.offset)
        _write_table(file, table, layout, parts, uuid, seed)


def _write_table(
    file: IO[bytes], table: str, layout: Layout, parts: list[Partition], uuid: str | UUID | None, seed: Seed
) -> None:
    if table == "mbr":
        entries = [MbrEntry(mbr_type(part.type, part.fstype), part.bootable) for part in parts]
        write_mbr(file, layout, entries, disk_signature(uuid, seed))
        return
    gpt_entries = [
        GptEntry(
            type=gpt_type(part.type, part.fstype),
            uuid=seed.uuid(f"partition {number}") if part.uuid is None else parse_uuid(part.uuid, "uuid"),
            name=part.name or "",
            attributes=part.attributes,
        )
        for (number, _), part in zip(layout.windows, parts, strict=True)
    ]
    write_gpt(file, layout, gpt_entries, seed.uuid("disk") if uuid is None else parse_uuid(uuid, "uuid"))


def _seed(table: str | None, sector_size: int, parts: list[Partition]) -> Seed:
    text = repr((table, sector_size, [part.describe() for part in parts]))
    return Seed(hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest())


def _convert(disk: Path, format: str, options: Mapping[str, object]) -> Path:
    if format == "raw":
        return disk
    converted = disk.with_name("converted")
    argv = ["qemu-img", "convert", "-f", "raw", "-O", format]
    for name, value in {**_FORMAT_DEFAULTS.get(format, {}), **options}.items():
        text = ("off", "on")[value] if isinstance(value, bool) else str(value)
        argv += ["-o", f"{name}={text.replace(',', ',,')}"]
    programs.run([*argv, str(disk), str(converted)])
    return converted
