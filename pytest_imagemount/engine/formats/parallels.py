"""Parallels: the header checked. Source: qemu's docs/interop/parallels.txt."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .content import Content

_MAGIC = b"WithoutFreeSpace"
_EXTENDED_MAGIC = b"WithouFreSpacExt"
_HEADER = struct.Struct("<16sIIIIIQIII")


def claims(content: Content) -> bool:
    """Either of its two magic strings."""
    return content.peek(16, 0) in (_MAGIC, _EXTENDED_MAGIC)


def virtual_size(content: Content) -> int:
    """The virtual size in bytes."""
    fields = _HEADER.unpack(content.read(_HEADER.size, 0, "Parallels header"))
    magic, version, _, _, tracks, entries, sectors = fields[:7]
    if version != 2:
        raise content.invalid(f"Parallels version {version} is not known, only 2 is")
    if not tracks:
        raise content.corrupt("its Parallels header gives 0 sectors a cluster")
    content.require_table(entries * 4, 64, "Parallels block table")
    # The upper half of the count is no part of it in the older of the two formats.
    return int(sectors if magic == _EXTENDED_MAGIC else sectors & 0xFFFF_FFFF) * 512
