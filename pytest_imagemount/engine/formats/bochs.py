"""Bochs, growing images: the header checked. Source: qemu's block/bochs.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .content import Content

_MAGIC = b"Bochs Virtual HD Image\0"
_VERSION_1, _VERSION_2 = 0x10000, 0x20000


def claims(content: Content) -> bool:
    """The magic string and the only type and subtype there are in use."""
    head = content.peek(64, 0)
    return head.startswith(_MAGIC) and head[32:48].rstrip(b"\0") == b"Redolog"


def virtual_size(content: Content) -> int:
    """The virtual size in bytes."""
    header = content.read(512, 0, "Bochs header")
    subtype = header[48:64].rstrip(b"\0")
    if subtype != b"Growing":
        hint = "make it one growing image with bximage"
        raise content.invalid("it is a Bochs image of another kind than a growing one", hint)
    version, catalog_at, entries = struct.unpack_from("<III", header, 64)
    if version not in (_VERSION_1, _VERSION_2):
        raise content.invalid(f"Bochs image version {version:#x} is not known")
    content.require_table(entries * 4, catalog_at, "Bochs catalog")
    return int(struct.unpack_from("<Q", header, 84 if version == _VERSION_1 else 88)[0])
