"""VMDK: sparse extents and text descriptors. Source: VMware, "Virtual Disk Format 5.0"; qemu's block/vmdk.c.

Where qemu takes a name of another file from, this looks too: the descriptor is read both where the header puts it and
at sector 1, where qemu expects it whatever the header says.

A disk of several files is a descriptor, a small text, that names its extents. qemu has no other way to be told of them
than by their names in such a text, so that it is given one of ours, see :func:`descriptor_of`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from typing import TYPE_CHECKING

from .content import decode_name, file_name
from .references import EXTENT, PARENT, Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .content import Content

_SPARSE_MAGIC = b"KDMV"
_VMFS_MAGIC = b"COWD"
_SPARSE = struct.Struct("<4sIIQQQQIQQQ")
_VMFS = struct.Struct("<4sIII")
_SECTOR = 512
_DIRECTORY_IS_IN_FOOTER = (1 << 64) - 1
_FOOTER_FROM_END = 1024
_TEXT_HEAD = 4096
_MAX_DESCRIPTOR = 1 << 20
_NO_PARENT = "ffffffff"

_EXTENT = re.compile(
    rb'^[ \t]*(RW|RDONLY|NOACCESS)[ \t]+(\d{1,19})[ \t]+(\w+)(?:[ \t]+"([^"\r\n]*)"(?:[ \t]+(\d{1,19}))?)?', re.I | re.M
)
_CREATE_TYPE = re.compile(rb'^[ \t]*createType[ \t]*=[ \t]*"(\w+)"', re.I | re.M)
_CID = re.compile(rb"^[ \t]*CID[ \t]*=[ \t]*([0-9a-f]{1,8})\b", re.I | re.M)
_PARENT_CID = re.compile(rb"^[ \t]*parentCID[ \t]*=[ \t]*([0-9a-f]+)", re.I | re.M)
_NULS = re.compile(rb"\0+")
_PARENT_NAME = re.compile(rb'parentFileNameHint[ \t]*=[ \t]*"?([^"\r\n]*)', re.I)

_FLAT_KINDS, _SPARSE_KINDS = ("FLAT", "VMFS"), ("SPARSE", "VMFSSPARSE")
_MAX_EXTENT_SECTORS = 1 << 54
_COMPRESSED = 1 << 16


def claims(content: Content) -> bool:
    """The magic number of a sparse extent, or the text of a descriptor."""
    head = content.peek(_TEXT_HEAD, 0)
    return head[:4] in (_SPARSE_MAGIC, _VMFS_MAGIC) or _is_descriptor(head)


def virtual_size(content: Content) -> int:
    """The virtual size in bytes."""
    magic = content.peek(4, 0)
    if magic == _SPARSE_MAGIC:
        return _sparse_virtual_size(content)
    if magic == _VMFS_MAGIC:
        *_, sectors = _VMFS.unpack(content.read(_VMFS.size, 0, "VMDK header"))
        _refer_to_other_files(content, content.peek(20 * _SECTOR, _SECTOR))
        return int(sectors) * _SECTOR
    descriptor = _lines(content.peek(_MAX_DESCRIPTOR, 0))
    _refer_to_parent(content, descriptor)
    extents = _extents(content, descriptor)
    content.refer(*(extents or [Reference(EXTENT, "", None)]))
    return sum(extent.sectors for extent in extents) * _SECTOR


def is_descriptor(content: Content) -> bool:
    """Whether this is a descriptor, whose extents are other files."""
    return content.peek(4, 0) not in (_SPARSE_MAGIC, _VMFS_MAGIC)


def why_not_written(content: Content) -> str:
    """Why qemu does not write to it; empty where it does."""
    if content.peek(4, 0) == _VMFS_MAGIC:
        return ""
    if is_descriptor(content):
        return "a VMDK of several files is not written to here"
    _, version, flags, *_ = _SPARSE.unpack(content.read(_SPARSE.size, 0, "VMDK header"))
    if flags & _COMPRESSED:
        return "qemu does not write to what a stream-optimised VMDK has already"
    return "qemu does not write to a VMDK of version 3" if version == 3 else ""


def descriptor_of(content: Content, extents: Sequence[tuple[Reference, str]]) -> bytes:
    """A descriptor for qemu that names the extents as given, each with a path of its own, and no parent."""
    original = _lines(content.peek(_MAX_DESCRIPTOR, 0))
    kind, own, parent = (pattern.search(original) for pattern in (_CREATE_TYPE, _CID, _PARENT_CID))
    lines = [
        "# Disk DescriptorFile",
        "version=1",
        f"CID={own[1].decode() if own else 'fffffffe'}",
        f"parentCID={parent[1].decode() if parent else _NO_PARENT}",
        f'createType="{kind[1].decode() if kind else ""}"',
    ]
    for extent, path in extents:
        place = f" {extent.first}" if extent.kind in _FLAT_KINDS else ""
        lines.append(f'RW {extent.sectors} {extent.kind} "{path}"{place}')
    return "\n".join([*lines, ""]).encode()


def _extents(content: Content, descriptor: bytes) -> list[Reference]:
    found = []
    for access, count, kind, name, first in _EXTENT.findall(descriptor):
        wanted = kind.decode().upper()
        extent = Reference(EXTENT, file_name(name), None, int(count), int(first or 0), wanted)
        if content.references is not None:
            if access.upper() != b"RW" or wanted not in _FLAT_KINDS + _SPARSE_KINDS or not extent.name:
                raise content.invalid(f"its VMDK descriptor has an extent of a kind that qemu skips, {wanted}")
            if not 0 < extent.sectors < _MAX_EXTENT_SECTORS or extent.first >= _MAX_EXTENT_SECTORS:
                raise content.corrupt(f"its VMDK descriptor has an extent of {extent.sectors} sectors")
        if extent.name:
            found.append(replace(extent, format="raw" if wanted in _FLAT_KINDS else "vmdk"))
    return found


def _is_descriptor(head: bytes) -> bool:
    """qemu's rule: comments and blank lines, then the version."""
    for line in head.split(b"\n"):
        stripped = line.strip()
        if stripped and not stripped.startswith(b"#"):
            return re.fullmatch(rb"version *= *[123]", stripped) is not None
    return False


def _lines(descriptor: bytes) -> bytes:
    """The descriptor with the zeros that pad it as line ends: what stands behind them is looked at too."""
    return _NULS.sub(b"\n", descriptor)


def _sparse_virtual_size(content: Content) -> int:
    fields = _SPARSE.unpack(content.read(_SPARSE.size, 0, "VMDK header"))
    _, version, _, sectors, grain, descriptor_sector, descriptor_sectors, _, _, directory, _ = fields
    embedded = content.peek(20 * _SECTOR, _SECTOR)
    if descriptor_sector:
        length = min(descriptor_sectors * _SECTOR or _MAX_DESCRIPTOR, _MAX_DESCRIPTOR)
        embedded += b"\n" + content.peek(length, descriptor_sector * _SECTOR)
    _refer_to_other_files(content, embedded)
    if not sectors:
        raise content.unsafe("data (its own size is 0)", "")
    if not 1 <= version <= 3:
        raise content.invalid(f"VMDK version {version} is not known, only 1 to 3 are")
    if not grain or grain & (grain - 1) or grain > 1 << 21:
        raise content.corrupt(f"its VMDK header gives {grain} sectors a grain")
    if directory != _DIRECTORY_IS_IN_FOOTER:
        content.require_inside(4, directory * _SECTOR, "grain directory")
        return int(sectors) * _SECTOR
    footer = _SPARSE.unpack(content.read(_SPARSE.size, max(content.size - _FOOTER_FROM_END, 0), "VMDK footer"))
    if footer[0] != _SPARSE_MAGIC:
        raise content.corrupt("truncated: the VMDK footer that its header speaks of is missing")
    return int(footer[3]) * _SECTOR


def _refer_to_other_files(content: Content, descriptor: bytes) -> None:
    """An embedded descriptor may name one sparse extent: the file that it is in, under whatever name it had."""
    descriptor = _lines(descriptor)
    _refer_to_parent(content, descriptor)
    extents = {(kind, name) for _, _, kind, name, _ in _EXTENT.findall(descriptor)}
    foreign = [name for kind, name in extents if b"SPARSE" not in kind.upper()]
    if len(extents) > 1 or foreign:
        names = sorted(decode_name(name) for _, name in extents)
        raise content.unsafe("data, or a part of it,", ", ".join(names[:8]))


def _refer_to_parent(content: Content, descriptor: bytes) -> None:
    name = _PARENT_NAME.search(descriptor)
    parent = _PARENT_CID.search(descriptor)
    if name or (parent and parent[1].decode().lower() != _NO_PARENT):
        content.refer(Reference(PARENT, file_name(name[1]) if name else "", "vmdk"))
