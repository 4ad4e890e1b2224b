"""A drawn bar of what lies where on a disk: each partition as wide as its share, free space between them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .engine.reader import Window
    from .terminal import Style

WIDTH = 76
"""Columns, which with an indent of two are less than 80."""

# Two fills in turn tell neighbours apart where there are no colours.
_BLOCKS, _BLOCKS_FREE = ("█", "▓"), "░"
_LETTERS, _LETTERS_FREE = ("#", "="), "."


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of a disk that belongs to one partition, by its number, or to none. ``size`` in bytes."""

    owner: int | None
    size: int


def draw_bar(disk_size: int, places: Sequence[tuple[int, Window]], style: Style, width: int = WIDTH) -> list[str]:
    """The bar and, below it, the numbers of the partitions; nothing where there is no partition.

    A partition has at least one column, as long as there are columns. Where partitions overlap, the smaller one is
    shown; a number is left out where there is no room for it.

    :param places: number and window of each partition
    """
    segments = layout(disk_size, places)
    if all(segment.owner is None for segment in segments):
        return []
    owners = cells(segments, width)
    order = {owner: index for index, owner in enumerate(dict.fromkeys(owner for owner in owners if owner is not None))}
    fills, free = (_BLOCKS, _BLOCKS_FREE) if style.unicode else (_LETTERS, _LETTERS_FREE)
    bar = ""
    for owner, length in _runs(owners):
        if owner is None:
            bar += style.dim(free * length)
        else:
            bar += style.tint(order[owner], fills[order[owner] % 2] * length)
    return [bar, _numbers(owners)]


def layout(disk_size: int, places: Sequence[tuple[int, Window]]) -> list[Segment]:
    """The disk from start to end, cut where a partition starts or ends; of two that overlap the smaller one owns."""
    inside = [(number, window) for number, window in places if window.size > 0]
    edges = sorted({0, disk_size, *(min(edge, disk_size) for _, one in inside for edge in (one.offset, one.end))})
    segments: list[Segment] = []
    for start, end in pairwise(edges):
        over = [(one.size, number) for number, one in inside if one.offset <= start and one.end >= end]
        owner = min(over)[1] if over else None
        if segments and segments[-1].owner == owner:
            segments[-1] = Segment(owner, segments[-1].size + end - start)
        else:
            segments.append(Segment(owner, end - start))
    return segments


def cells(segments: Sequence[Segment], width: int) -> list[int | None]:
    """The owner of each of ``width`` columns: shares rounded, with one column at least for what is owned."""
    total = sum(segment.size for segment in segments)
    if len(segments) > width:
        return [_owner_at(segments, (2 * column + 1) * total // (2 * width)) for column in range(width)]
    # In units of 1/total of a column, so that nothing is rounded before the end.
    shares = [segment.size * width for segment in segments]
    least = [0 if segment.owner is None else 1 for segment in segments]
    columns = [max(fewest, (share + total // 2) // total) for share, fewest in zip(shares, least, strict=True)]
    while sum(columns) != width:
        excess = [count * total - share for count, share in zip(columns, shares, strict=True)]
        if sum(columns) > width:
            movable = [index for index, count in enumerate(columns) if count > least[index]]
            columns[max(movable, key=lambda index: excess[index])] -= 1
        else:
            columns[min(range(len(columns)), key=lambda index: excess[index])] += 1
    return [segment.owner for segment, count in zip(segments, columns, strict=True) for _ in range(count)]


def _owner_at(segments: Iterable[Segment], place: int) -> int | None:
    for segment in segments:
        place -= segment.size
        if place < 0:
            return segment.owner
    return None


def _runs(owners: Sequence[int | None]) -> list[tuple[int | None, int]]:
    """Each owner with how many columns follow each other."""
    runs: list[tuple[int | None, int]] = []
    for owner in owners:
        if runs and runs[-1][0] == owner:
            runs[-1] = owner, runs[-1][1] + 1
        else:
            runs.append((owner, 1))
    return runs


def _numbers(owners: Sequence[int | None]) -> str:
    """Each number in the middle of its first run, or at its start; left out where it would touch the one before."""
    line = ""
    start = 0
    told: set[int] = set()
    for owner, length in _runs(owners):
        text = str(owner)
        column = start + max(0, (length - len(text)) // 2)
        start += length
        if owner is None or owner in told or (line and column <= len(line)) or column + len(text) > len(owners):
            continue
        line = line.ljust(column) + text
        told.add(owner)
    return line
