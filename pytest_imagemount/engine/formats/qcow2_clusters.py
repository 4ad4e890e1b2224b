"""Whether the end of a qcow2 file is missing, told without reading all of its tables.

qemu opens a truncated qcow2 and reads zeros where the file ends early: a conversion of one exits with status 0 and
gives other bytes. A test that reads such a disk would see wrong content and no error, so it is refused here.

Layout: qemu's docs/interop/qcow2.txt, "Host cluster management" and "Cluster mapping".
"""

from __future__ import annotations

import heapq
import sys
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .content import Content

_OFFSET = 0x00FF_FFFF_FFFF_FE00
_REFCOUNT_BLOCK_OFFSET = 0xFFFF_FFFF_FFFF_FE00
_COMPRESSED = 1 << 62
_READS_AS_ZERO = 1
_SUBCLUSTERS_ALLOCATED = 0xFFFF_FFFF

_L2_BUDGET = 64 << 20
"""Bytes of L2 tables that are read at most; 64 KiB clusters: those of 512 GiB of disk."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The top-level tables, as in the file. ``l2_entry_bytes`` is 8, or 16 with extended L2 entries."""

    cluster_bits: int
    l1: bytes
    refcounts: bytes
    refcount_bits: int
    l2_entry_bytes: int


def end_is_missing(content: Content, tables: Tables) -> str | None:
    """What lies beyond the end of the file, in words, or None.

    The last cluster of which the refcounts say that it is in use tells it in one read. A crash may leave a cluster
    counted that nobody uses and that was never written ("leaked", harmless): so a count alone is not believed, and an
    L2 entry that points there is looked for. That walk is bounded; what it does not find is taken as leaked.
    """
    cluster = 1 << tables.cluster_bits
    l1 = _u64(tables.l1)
    last_table = max((entry & _OFFSET for entry in l1), default=0)
    if last_table and last_table + cluster > content.size:
        return f"an L2 table of it lies at byte {last_table}"
    used_end = _last_counted_cluster(content, tables) << tables.cluster_bits
    if used_end < content.size:
        return None
    for offset in heapq.nlargest(_L2_BUDGET >> tables.cluster_bits, (entry & _OFFSET for entry in l1)):
        if not offset:
            break
        target = _highest_target(_u64(content.peek(cluster, offset)), tables)
        if target >= content.size:
            return f"data of it lies at byte {target}"
    return None


def _last_counted_cluster(content: Content, tables: Tables) -> int:
    """The number of the last host cluster whose refcount is not 0; 0 if the refcounts cannot be read."""
    used = tables.refcounts.rstrip(b"\0")
    if not used:
        return 0
    index = (len(used) - 1) // 8
    offset = int.from_bytes(tables.refcounts[index * 8 : index * 8 + 8], "big") & _REFCOUNT_BLOCK_OFFSET
    counts = content.peek(1 << tables.cluster_bits, offset).rstrip(b"\0")
    if not counts:
        return 0
    last_byte = len(counts) - 1
    if tables.refcount_bits >= 8:
        slot = last_byte * 8 // tables.refcount_bits
    else:
        # Counts narrower than a byte fill it from its low end.
        slot = (last_byte * 8 + counts[-1].bit_length() - 1) // tables.refcount_bits
    per_block = (8 << tables.cluster_bits) // tables.refcount_bits
    return index * per_block + slot


def _highest_target(entries: array[int], tables: Tables) -> int:
    """The highest host offset, in bytes, that an L2 table maps data to."""
    if tables.l2_entry_bytes == 16:
        pairs = zip(entries[::2], entries[1::2], strict=False)
        entries = array(
            "Q", [entry for entry, bitmap in pairs if entry & _COMPRESSED or bitmap & _SUBCLUSTERS_ALLOCATED]
        )
    compressed_offset = (1 << (62 - (tables.cluster_bits - 8))) - 1
    plain = (entry & _OFFSET for entry in entries if not entry & (_COMPRESSED | _READS_AS_ZERO))
    packed = (entry & compressed_offset for entry in entries if entry & _COMPRESSED)
    return max(max(plain, default=0), max(packed, default=0))


def _u64(raw: bytes) -> array[int]:
    """Big-endian 64-bit numbers."""
    numbers = array("Q", raw[: len(raw) // 8 * 8])
    if sys.byteorder == "little":
        numbers.byteswap()
    return numbers
