"""qcow2, versions 2 and 3: the header checked. Source: qemu's docs/interop/qcow2.txt."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..text import printable
from . import qcow2_bitmaps
from .content import decode_name, file_name
from .qcow2_clusters import Tables, end_is_missing
from .references import BACKING, DATA, Reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .content import Content

MAGIC = b"QFI\xfb"
_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")
_HEADER_3 = struct.Struct(">QQQII")

_CORRUPT = 1 << 1
_EXTERNAL_DATA = 1 << 2
_EXTENDED_L2 = 1 << 4
_KNOWN_INCOMPATIBLE = 0b11111

_EXTENSION_DATA_FILE = 0x44415441
_EXTENSION_BACKING_FORMAT = 0xE2792ACA
_EXTENSION_FEATURE_NAMES = 0x6803F857
_FEATURE_NAME = struct.Struct(">BB46s")
_INCOMPATIBLE = 0

# qemu's own bounds (block/qcow2.h): what is above them it refuses to open.
_MAX_L1_BYTES = 32 << 20
_MAX_REFCOUNT_TABLE_BYTES = 8 << 20
_MAX_SNAPSHOTS = 65536
_MAX_BACKING_NAME = 1023


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    backing_offset: int
    backing_size: int
    cluster_bits: int
    size: int
    encryption: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    length: int = _HEADER.size

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits


def claims(content: Content) -> bool:
    """The magic number, and not version 1, which is the ``qcow`` format."""
    head = content.peek(8, 0)
    return head[:4] == MAGIC and head[4:] != b"\0\0\0\1"


def virtual_size(content: Content) -> int:
    """The virtual size in bytes, after every check that needs no walk through all of the image."""
    header = _read_header(content)
    extensions = dict(_extensions(content, header))
    _refer(content, header, extensions)
    _refuse_features(content, header, extensions)
    _check_tables(content, header)
    if header.autoclear & qcow2_bitmaps.IN_USE and qcow2_bitmaps.EXTENSION in extensions:
        qcow2_bitmaps.check_bitmaps(content, extensions[qcow2_bitmaps.EXTENSION], header.size)
    return header.size


def _read_header(content: Content) -> _Header:
    _, version, *rest = _HEADER.unpack(content.read(_HEADER.size, 0, "qcow2 header"))
    if version not in (2, 3):
        hint = "convert it with the qemu-img that wrote it"
        raise content.invalid(f"qcow2 version {version} is not known, only 2 and 3 are", hint)
    header = _Header(version, *rest)
    if not 9 <= header.cluster_bits <= 21:
        raise content.corrupt(
            f"its qcow2 header gives 2^{header.cluster_bits} bytes a cluster; 2^9 to 2^21 are allowed"
        )
    if version == 2:
        return header
    incompatible, _, autoclear, order, length = _HEADER_3.unpack(
        content.read(_HEADER_3.size, _HEADER.size, "qcow2 header")
    )
    if order > 6:
        raise content.corrupt(f"its qcow2 header gives refcounts of 2^{order} bits; 64 bits is the most")
    if not _HEADER.size + _HEADER_3.size <= length <= header.cluster_size or length % 8:
        raise content.corrupt(f"its qcow2 header gives its own length as {length} bytes")
    return replace(header, incompatible=incompatible, autoclear=autoclear, refcount_order=order, length=length)


def _extensions(content: Content, header: _Header) -> Iterator[tuple[int, bytes]]:
    """Type and content of each header extension. They end at the backing file's name or with the first cluster."""
    end = min(header.cluster_size, header.backing_offset or header.cluster_size)
    area = content.peek(end, 0)
    offset = header.length
    while offset + 8 <= len(area):
        kind, length = struct.unpack_from(">II", area, offset)
        offset += 8
        if kind == 0:
            return
        if offset + length > len(area):
            raise content.corrupt(f"its qcow2 header extension {kind:#x} of {length} bytes runs out of the header")
        yield kind, area[offset : offset + length]
        offset += (length + 7) & ~7


def _refer(content: Content, header: _Header, extensions: dict[int, bytes]) -> None:
    if header.incompatible & _EXTERNAL_DATA or _EXTENSION_DATA_FILE in extensions:
        content.refer(Reference(DATA, file_name(extensions.get(_EXTENSION_DATA_FILE, b"")), "raw"))
    if header.backing_offset and header.backing_size:
        if header.backing_size > _MAX_BACKING_NAME:
            raise content.corrupt(f"its backing file's name is {header.backing_size} bytes long; 1023 is the most")
        name = content.read(header.backing_size, header.backing_offset, "backing file's name")
        format = extensions.get(_EXTENSION_BACKING_FORMAT)
        content.refer(Reference(BACKING, file_name(name), None if format is None else decode_name(format)))


def _refuse_features(content: Content, header: _Header, extensions: dict[int, bytes]) -> None:
    if unknown := header.incompatible & ~_KNOWN_INCOMPATIBLE:
        names = dict(_feature_names(extensions.get(_EXTENSION_FEATURE_NAMES, b"")))
        bits = [bit for bit in range(64) if unknown >> bit & 1]
        listed = ", ".join(f"{bit} ({names[bit]})" if bit in names else str(bit) for bit in bits)
        hint = "it was written by a newer qemu: convert it there with `qemu-img convert`"
        raise content.invalid(f"it needs qcow2 features that are not known, incompatible bits {listed}", hint)
    if header.incompatible & _CORRUPT:
        raise content.invalid("it is marked as corrupt (qcow2 incompatible bit 1)", "run `qemu-img check -r all` on it")
    if header.encryption:
        method = {1: "AES", 2: "LUKS"}.get(header.encryption, f"method {header.encryption}")
        raise content.invalid(f"it is encrypted by qcow2 itself ({method})", "decrypt it with `qemu-img convert`")


def _feature_names(table: bytes) -> Iterator[tuple[int, str]]:
    for kind, bit, name in _FEATURE_NAME.iter_unpack(table[: len(table) // _FEATURE_NAME.size * _FEATURE_NAME.size]):
        if kind == _INCOMPATIBLE:
            yield bit, printable(decode_name(name.rstrip(b"\0")))


def _check_tables(content: Content, header: _Header) -> None:
    """Each table lies in the file and is large enough for the disk; the clusters in use lie in the file."""
    cluster = header.cluster_size
    entry_bytes = 16 if header.incompatible & _EXTENDED_L2 else 8
    per_l1_entry = cluster * (cluster // entry_bytes)
    needed = -(-header.size // per_l1_entry)
    if not header.size:
        raise content.invalid("its virtual disk has 0 bytes", "make it anew with a size")
    if header.l1_entries * 8 > _MAX_L1_BYTES or header.l1_entries < needed:
        raise content.corrupt(f"its L1 table has {header.l1_entries} entries; {header.size} bytes need {needed}")
    refcount_bytes = header.refcount_clusters * cluster
    if not refcount_bytes or refcount_bytes > _MAX_REFCOUNT_TABLE_BYTES:
        raise content.corrupt(f"its refcount table has {header.refcount_clusters} clusters of {cluster} bytes")
    for offset, what in ((header.l1_offset, "L1 table"), (header.refcount_offset, "refcount table")):
        if offset % cluster or not offset:
            raise content.corrupt(f"its {what} starts at byte {offset}, where no cluster starts")
    if header.snapshots > _MAX_SNAPSHOTS:
        raise content.corrupt(f"it claims {header.snapshots} snapshots; {_MAX_SNAPSHOTS} is the most")
    content.require_inside(header.l1_entries * 8, header.l1_offset, "L1 table")
    content.require_inside(refcount_bytes, header.refcount_offset, "refcount table")
    if header.snapshots:
        content.require_inside(header.snapshots * 40, header.snapshots_offset, "snapshot table")
    tables = Tables(
        cluster_bits=header.cluster_bits,
        l1=content.read(header.l1_entries * 8, header.l1_offset, "L1 table"),
        refcounts=content.read(refcount_bytes, header.refcount_offset, "refcount table"),
        refcount_bits=1 << header.refcount_order,
        l2_entry_bytes=entry_bytes,
    )
    external = bool(header.incompatible & _EXTERNAL_DATA)  # then the L2 tables speak of places in that file
    if not external and (missing := end_is_missing(content, tables)):
        raise content.corrupt(f"truncated: {missing}, the file ends at byte {content.size}")
