"""What was found in an image, as text for people: safe to print, and within 80 columns but for names and warnings."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from .engine.tables.partition_table import align, columns, label_text
from .engine.text import human_size, printable
from .errors import describe_part
from .layout_bar import draw_bar
from .terminal import exact_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .engine.image import Layer
    from .engine.superblock import Superblock
    from .engine.tables.read import Partition, PartitionTable
    from .engine.volumes.contents import Volume
    from .inspection import Inspection
    from .terminal import Style

_COLUMNS = 80
_INDENT = "  "
_LEAST = 8
"""Columns that a cut text has at least."""

# What libblkid calls what is no file system, in words.
_WORDS = {
    "LVM2_member": "LVM physical volume",
    "LVM1_member": "LVM physical volume",
    "crypto_LUKS": "LUKS",
    "linux_raid_member": "Linux RAID member",
    "DM_verity_hash": "verity hash tree",
    "DM_integrity": "integrity tags",
    "BitLocker": "BitLocker",
    "isw_raid_member": "Intel RAID member",
    "ddf_raid_member": "DDF RAID member",
    "zfs_member": "ZFS member",
    "bcache": "bcache",
    "VMFS_volume_member": "VMFS member",
}


def render(found: Inspection, style: Style) -> str:
    """The inspection as text that is safe to print."""
    allocated = "" if found.allocated is None else f", {human_size(found.allocated)} allocated"
    lines = [
        style.bold(printable(str(found.path))),
        f"  format        {found.format}",
        f"  virtual size  {exact_size(found.virtual_size)}",
        f"  file size     {exact_size(found.file_size)}{allocated}",
        *(_references(found.layers) if found.layers else ["  safety        refers to no other file"]),
        "",
    ]
    if found.table:
        lines += _table(found, found.table, style)
    else:
        lines += ["No partition table", f"  content  {describe(found.whole)}", *_whole_identity(found.whole.superblock)]
    lines += [*_logical_volumes(found, style), "", *_auto(found)]
    if found.os:
        lines += ["", style.bold("Operating system"), *found.os.lines()]
    return "\n".join(lines)


def _references(layers: Sequence[Layer]) -> Iterator[str]:
    for layer in layers:
        yield f"  refers to     {layer.reference.role} {printable(layer.image.name)} ({layer.image.format})"
        yield from _references(layer.image.layers)


def describe(volume: Volume) -> str:
    """What a volume holds, in words."""
    found = volume.superblock
    if found is None:
        return printable(volume.error or "nothing known")
    words = [_WORDS.get(found.type, found.type)]
    # That of ext4 is always 1.0, that of swap 1.
    if found.version not in (None, "1.0") and found.type != "swap":
        words.append(found.version or "")
    if not found.mountable and found.type not in _WORDS and found.type != "swap":
        words.append(f"({found.usage}, not mountable)")
    return printable(" ".join(words))


def _table(found: Inspection, table: PartitionTable, style: Style) -> Iterator[str]:
    yield style.bold(table.title)
    places = [(one.number, one.window) for one in table.partitions if not one.container]
    yield from (_INDENT + line for line in draw_bar(found.virtual_size, places, style))
    if not table.partitions:
        yield "  no partitions"
        return
    rows = [_row(one, found.volumes.get(one.number)) for one in table.partitions]
    yield from _aligned([("#", "start", "size", "type", "name", "content", "label"), *rows], right=3)
    if found.whole.superblock:
        yield f"  the disk as a whole holds {describe(found.whole)}{_labelled(found.whole.superblock)}"
    for partition in table.partitions:
        if partition.attribute_names:
            yield f"  partition {partition.number} is marked {', '.join(partition.attribute_names)}"
    for warning in table.warnings:
        yield from textwrap.wrap(
            f"warning: {printable(warning)}", _COLUMNS, initial_indent=_INDENT, subsequent_indent=_INDENT * 2
        )
    identities = [(str(one.number), one.uuid or "-", _uuid(found.volumes.get(one.number))) for one in table.partitions]
    if any((partition, content) != ("-", "-") for _, partition, content in identities):
        yield ""
        yield style.bold("Identities")
        rows_of_identities = [("#", "partition uuid", "uuid of its content"), *identities]
        yield from (_INDENT + line for line in align(rows_of_identities, right=1))


def _logical_volumes(found: Inspection, style: Style) -> Iterator[str]:
    if found.logical.found or found.logical.error:
        yield ""
        yield style.bold("Logical volumes")
    if found.logical.error:
        yield from textwrap.wrap(
            printable(found.logical.error), _COLUMNS, initial_indent=_INDENT, subsequent_indent=_INDENT
        )
    rows = [
        (
            human_size(one.size),
            label_text(one.name),
            printable(one.kind),
            describe(one.content) if one.content else "-",
            label_text(one.superblock.label if one.superblock else None),
        )
        for one in found.logical.found
    ]
    if rows:
        yield from _aligned([("size", "name", "kind", "content", "label"), *rows], right=1)


def _row(partition: Partition, volume: Volume | None) -> tuple[str, ...]:
    superblock = volume.superblock if volume else None
    return (
        *columns(partition),
        "(holds partitions)" if partition.container else describe(volume) if volume else "-",
        label_text(superblock.label if superblock else None),
    )


def _aligned(rows: Sequence[tuple[str, ...]], *, right: int) -> list[str]:
    """The rows in columns, the widest texts cut so that they fit; without columns that hold nothing.

    :param right: how many columns, the first ones, are numbers and sizes, which are never cut
    """
    kept = [index for index in range(len(rows[0])) if any(row[index] != "-" for row in rows[1:])]
    shown = [[row[index] for index in kept] for row in rows]
    widths = [max(len(row[column]) for row in shown) for column in range(len(kept))]
    room = _COLUMNS - len(_INDENT) - 2 * (len(kept) - 1)
    while sum(widths) > room and max(widths[right:]) > _LEAST:
        widest = max(range(right, len(widths)), key=lambda column: widths[column])
        widths[widest] -= 1
    cut = [[_cut(cell, width) for cell, width in zip(row, widths, strict=True)] for row in shown]
    return [_INDENT + line for line in align(cut, right=right)]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _uuid(volume: Volume | None) -> str:
    return printable((volume and volume.superblock and volume.superblock.uuid) or "-")


def _labelled(superblock: Superblock) -> str:
    return f', label "{printable(superblock.label)}"' if superblock.label else ""


def _whole_identity(superblock: Superblock | None) -> Iterator[str]:
    if superblock and superblock.label:
        yield f"  label    {printable(superblock.label)}"
    if superblock and superblock.uuid:
        yield f"  uuid     {printable(superblock.uuid)}"


def _auto(found: Inspection) -> Iterator[str]:
    """What ``partition="auto"`` mounts, as far as that can be told without looking into a file system."""
    choice = found.auto
    if choice.error is None:
        yield f'partition="auto" mounts {describe_part(choice.partition)}'
    else:
        text = f'partition="auto" is not clear from this: {printable(choice.error)}'
        yield from textwrap.wrap(text, _COLUMNS, subsequent_indent=_INDENT)
