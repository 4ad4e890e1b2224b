"""VDI: the header checked. Source: qemu's block/vdi.c."""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .content import Content

_SIGNATURE = struct.pack("<I", 0xBEDA107F)
_SIGNATURE_AT = 64
_HEADER = struct.Struct("<64sIIIII256sIIIIIIIQIIII16s16s16s16s")
_DYNAMIC, _STATIC = 1, 2


def claims(content: Content) -> bool:
    """The signature behind the free text at the start."""
    return content.peek(4, _SIGNATURE_AT) == _SIGNATURE


def virtual_size(content: Content) -> int:
    """The virtual size in bytes of a VDI that is no difference to another."""
    fields = _HEADER.unpack(content.read(_HEADER.size, 0, "VDI header"))
    version, kind, map_offset, sector, size, blocks = (fields[index] for index in (2, 4, 7, 12, 14, 17))
    link, parent = fields[21:23]
    if any(parent) or any(link) or kind not in (_DYNAMIC, _STATIC):
        wanted = next((value for value in (parent, link) if any(value)), bytes(16))
        raise content.unsafe("parent disk", f"VDI {uuid.UUID(bytes_le=wanted)}" if any(wanted) else "")
    if version != 0x10001:
        raise content.invalid(f"VDI version {version >> 16}.{version & 0xFFFF} is not known, only 1.1 is")
    if sector != 512:
        raise content.corrupt(f"its VDI header gives {sector} bytes a sector")
    content.require_table(blocks * 4, map_offset, "VDI block map")
    return int(size)
