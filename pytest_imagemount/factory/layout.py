"""Where on a disk each partition lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.reader import Window
from ..errors import RequestInvalid
from .sizes import KIB, MIB, round_up

if TYPE_CHECKING:
    from collections.abc import Sequence

ALIGNMENT = MIB
"""Partitions begin on multiples of this many bytes, as every partitioning program of today makes them."""

GPT_ENTRIES_SIZE = 16 * KIB
_PRIMARIES = 4
_MBR_LAST_SECTOR = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Extent:
    """A partition to place: ``size`` in bytes, and where it must start, or None for the next free place."""

    size: int
    start: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """Partition numbers with their windows, in order, on a disk of ``size`` bytes in sectors of ``sector_size``.

    In an MBR with more than four partitions the first three are primary and have the numbers 1 to 3, the others are
    logical, from 5 on, inside ``extended``, each with its table ``ALIGNMENT`` bytes before it.
    """

    size: int
    sector_size: int
    windows: tuple[tuple[int, Window], ...]
    extended: Window | None = None


def plan(table: str, extents: Sequence[Extent], size: int | None, sector_size: int) -> Layout:
    """A layout for ``table`` (``"gpt"`` or ``"mbr"``). The disk is as large as it must be when ``size`` is None.

    :raises RequestInvalid: a size or start is not of whole sectors, partitions overlap, or do not fit
    """
    logical_from = _PRIMARIES - 1 if table == "mbr" and len(extents) > _PRIMARIES else len(extents)
    first, tail = _reserved(table, sector_size)
    windows: list[tuple[int, Window]] = []
    free = first
    for index, extent in enumerate(extents):
        logical = index >= logical_from
        number = index + 2 if logical else index + 1
        lowest = round_up(free, ALIGNMENT) + (ALIGNMENT if logical else 0)
        start = lowest if extent.start is None else extent.start
        if start < (free + ALIGNMENT if logical else free):
            reason = f"partition {number} would begin before byte {free}, where the one before it ends"
            raise RequestInvalid(argument="start", value=str(start), reason=reason)
        for name, value in (("start", start), ("size", extent.size)):
            if value % sector_size:
                reason = f"partition {number} is to be of whole sectors of {sector_size} bytes"
                raise RequestInvalid(argument=name, value=str(value), reason=reason)
        windows.append((number, Window(start, extent.size)))
        free = start + extent.size
    least = free + tail
    total = round_up(least, ALIGNMENT) if size is None else size
    if total < least or total % sector_size:
        reason = f"the partitions take {least} bytes with their table, in sectors of {sector_size}"
        raise RequestInvalid(argument="size", value=str(total), reason=reason)
    if table == "mbr" and total // sector_size > _MBR_LAST_SECTOR:
        reason = f"an MBR reaches {_MBR_LAST_SECTOR} sectors; use table='gpt'"
        raise RequestInvalid(argument="size", value=str(total), reason=reason)
    extended = None
    if logical_from < len(extents):
        begin = windows[logical_from][1].offset - ALIGNMENT
        extended = Window(begin, windows[-1][1].end - begin)
    return Layout(total, sector_size, tuple(windows), extended)


def _reserved(table: str, sector_size: int) -> tuple[int, int]:
    """Bytes that the table needs at the start and at the end of the disk."""
    if table == "gpt":
        return 2 * sector_size + GPT_ENTRIES_SIZE, sector_size + GPT_ENTRIES_SIZE
    return sector_size, 0
