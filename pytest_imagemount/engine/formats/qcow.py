"""qcow (version 1) and QED: headers checked. Sources: qemu's block/qcow.c and docs/interop/qed_spec.txt."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .content import file_name
from .references import BACKING, Reference

if TYPE_CHECKING:
    from .content import Content

_QCOW_MAGIC = b"QFI\xfb\0\0\0\1"
_QCOW = struct.Struct(">8sQIIQBBHIQ")
_QED_MAGIC = b"QED\0"
_QED = struct.Struct("<4sIIIQQQQQII")
_QED_BACKING_FILE = 1
_QED_BACKING_IS_RAW = 1 << 2
_QED_KNOWN_FEATURES = 0b111
_MOST_QED_TABLE = 4 << 20
"""Bytes of one table, of which qemu keeps fifty in memory. It makes them of 256 KiB."""
_MAX_BACKING_NAME = 1023


def claims_qcow(content: Content) -> bool:
    """The magic number it shares with qcow2, and version 1."""
    return content.peek(8, 0) == _QCOW_MAGIC


def qcow_virtual_size(content: Content) -> int:
    """The virtual size in bytes of a qcow image that is not encrypted."""
    fields = _QCOW.unpack(content.read(_QCOW.size, 0, "qcow header"))
    _, backing_offset, backing_size, _, size, cluster_bits, l2_bits, _, encryption, l1_offset = fields
    if backing_offset and backing_size:
        _refer(content, backing_offset, backing_size, None)
    if not 9 <= cluster_bits <= 16 or not 6 <= l2_bits <= 13:
        raise content.corrupt(f"its qcow header gives 2^{cluster_bits} bytes a cluster, 2^{l2_bits} entries a table")
    if size <= 1:
        raise content.corrupt(f"its qcow header gives a virtual size of {size} bytes")
    if encryption:
        raise content.invalid("it is encrypted by qcow itself", "decrypt it with `qemu-img convert`")
    l1_entries = -(-size >> (cluster_bits + l2_bits))
    content.require_table(l1_entries * 8, l1_offset, "L1 table")
    return int(size)


def claims_qed(content: Content) -> bool:
    """The magic number."""
    return content.peek(4, 0) == _QED_MAGIC


def qed_virtual_size(content: Content) -> int:
    """The virtual size in bytes of a QED image."""
    fields = _QED.unpack(content.read(_QED.size, 0, "QED header"))
    _, cluster, table_clusters, _, features, _, _, l1_offset, size, backing_offset, backing_size = fields
    if features & _QED_BACKING_FILE or (backing_offset and backing_size):
        # All that QED says of the format is that it is raw, or that it is not.
        _refer(content, backing_offset, backing_size, "raw" if features & _QED_BACKING_IS_RAW else None)
    if unknown := features & ~_QED_KNOWN_FEATURES:
        bits = ", ".join(str(bit) for bit in range(64) if unknown >> bit & 1)
        hint = "convert it with the qemu-img that wrote it"
        raise content.invalid(f"it needs QED features that are not known, bits {bits}", hint)
    if not _is_power_of_two(cluster, 1 << 12, 1 << 26) or not _is_power_of_two(table_clusters, 1, 16):
        raise content.corrupt(f"its QED header gives {cluster} bytes a cluster, {table_clusters} clusters a table")
    content.require_inside(cluster * table_clusters, l1_offset, "L1 table")
    if cluster * table_clusters > _MOST_QED_TABLE:
        hint = "convert it with `qemu-img convert -O qcow2`, if you trust it"
        raise content.invalid(f"its L1 table has {cluster * table_clusters} bytes; {_MOST_QED_TABLE} is the most", hint)
    return int(size)


def _refer(content: Content, offset: int, size: int, format: str | None) -> None:
    if size > _MAX_BACKING_NAME:
        raise content.corrupt(f"its backing file's name is {size} bytes long; {_MAX_BACKING_NAME} is the most")
    name = file_name(content.read(size, offset, "backing file's name"))
    content.refer(Reference(BACKING, name, format))


def _is_power_of_two(number: int, least: int, most: int) -> bool:
    return least <= number <= most and not number & (number - 1)
