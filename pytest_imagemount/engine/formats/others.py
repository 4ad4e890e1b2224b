"""VDI, Parallels, Bochs, cloop and DMG: headers checked.

Sources: qemu's block/vdi.c, docs/interop/parallels.txt, block/bochs.c, block/cloop.c and block/dmg.c.
"""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .content import Content

_VDI_SIGNATURE = struct.pack("<I", 0xBEDA107F)
_VDI_SIGNATURE_AT = 64
_VDI = struct.Struct("<64sIIIII256sIIIIIIIQIIII16s16s16s16s")
_VDI_DYNAMIC, _VDI_STATIC = 1, 2

_PARALLELS_MAGIC = b"WithoutFreeSpace"
_PARALLELS_EXTENDED_MAGIC = b"WithouFreSpacExt"
_PARALLELS = struct.Struct("<16sIIIIIQIII")

_BOCHS_MAGIC = b"Bochs Virtual HD Image\0"
_BOCHS_VERSION_1, _BOCHS_VERSION_2 = 0x10000, 0x20000
_CLOOP_MAGIC = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"

_KOLY_SIZE = 512
_KOLY = struct.Struct(">4sIII5Q")
_KOLY_XML = struct.Struct(">QQ")
_KOLY_XML_AT = 216


def claims_vdi(content: Content) -> bool:
    """The signature behind the free text at the start."""
    return content.peek(4, _VDI_SIGNATURE_AT) == _VDI_SIGNATURE


def vdi_virtual_size(content: Content) -> int:
    """The virtual size in bytes of a VDI that is no difference to another."""
    fields = _VDI.unpack(content.read(_VDI.size, 0, "VDI header"))
    version, kind, map_offset, sector, size, blocks = (fields[index] for index in (2, 4, 7, 12, 14, 17))
    link, parent = fields[21:23]
    if any(parent) or any(link) or kind not in (_VDI_DYNAMIC, _VDI_STATIC):
        wanted = next((value for value in (parent, link) if any(value)), bytes(16))
        raise content.unsafe("parent disk", f"VDI {uuid.UUID(bytes_le=wanted)}" if any(wanted) else "")
    if version != 0x10001:
        raise content.invalid(f"VDI version {version >> 16}.{version & 0xFFFF} is not known, only 1.1 is")
    if sector != 512:
        raise content.corrupt(f"its VDI header gives {sector} bytes a sector")
    content.require_inside(blocks * 4, map_offset, "VDI block map")
    return int(size)


def claims_parallels(content: Content) -> bool:
    """Either of its two magic strings."""
    return content.peek(16, 0) in (_PARALLELS_MAGIC, _PARALLELS_EXTENDED_MAGIC)


def parallels_virtual_size(content: Content) -> int:
    """The virtual size in bytes."""
    fields = _PARALLELS.unpack(content.read(_PARALLELS.size, 0, "Parallels header"))
    magic, version, _, _, tracks, entries, sectors = fields[:7]
    if version != 2:
        raise content.invalid(f"Parallels version {version} is not known, only 2 is")
    if not tracks:
        raise content.corrupt("its Parallels header gives 0 sectors a cluster")
    content.require_inside(entries * 4, 64, "Parallels block table")
    # The upper half of the count is no part of it in the older of the two formats.
    return int(sectors if magic == _PARALLELS_EXTENDED_MAGIC else sectors & 0xFFFF_FFFF) * 512


def claims_bochs(content: Content) -> bool:
    """The magic string and the only type and subtype there are in use."""
    head = content.peek(64, 0)
    return head.startswith(_BOCHS_MAGIC) and head[32:48].rstrip(b"\0") == b"Redolog"


def bochs_virtual_size(content: Content) -> int:
    """The virtual size in bytes."""
    header = content.read(512, 0, "Bochs header")
    subtype = header[48:64].rstrip(b"\0")
    if subtype != b"Growing":
        hint = "make it one growing image with bximage"
        raise content.invalid("it is a Bochs image of another kind than a growing one", hint)
    version, catalog_at, entries = struct.unpack_from("<III", header, 64)
    if version not in (_BOCHS_VERSION_1, _BOCHS_VERSION_2):
        raise content.invalid(f"Bochs image version {version:#x} is not known")
    content.require_inside(entries * 4, catalog_at, "Bochs catalog")
    return int(struct.unpack_from("<Q", header, 84 if version == _BOCHS_VERSION_1 else 88)[0])


def claims_cloop(content: Content) -> bool:
    """The shell script at its start."""
    return content.peek(len(_CLOOP_MAGIC), 0) == _CLOOP_MAGIC


def cloop_virtual_size(content: Content) -> int:
    """The virtual size in bytes."""
    block_size, blocks = struct.unpack(">II", content.read(8, 128, "cloop header"))
    if not block_size or block_size % 512 or block_size > 64 << 20:
        raise content.corrupt(f"its cloop header gives {block_size} bytes a block")
    content.require_inside((blocks + 1) * 8, 136, "cloop offset table")
    return int(block_size * blocks)


def _koly(content: Content) -> bytes:
    return content.peek(_KOLY_SIZE, max(content.size - _KOLY_SIZE, 0))


def claims_dmg(content: Content) -> bool:
    """A UDIF trailer that is one in all respects, behind content that does not start as a disk does.

    The trailer must be of version 4, give its own length, and point at a property list or resource fork that lies in
    the file. A file with a boot signature in its first sector is taken as a raw disk all the same: the first bytes of a
    DMG are compressed data.
    """
    if not admits_dmg(content) or content.peek(2, 510) == b"\x55\xaa":
        return False
    trailer, end = _koly(content), content.size - _KOLY_SIZE
    _, version, length, _, _, data_at, data_length, fork_at, fork_length = _KOLY.unpack_from(trailer)
    xml_at, xml_length = _KOLY_XML.unpack_from(trailer, _KOLY_XML_AT)
    return (
        version == 4
        and length == _KOLY_SIZE
        and bool(xml_length or fork_length)
        and max(data_at + data_length, fork_at + fork_length, xml_at + xml_length) <= end
    )


def admits_dmg(content: Content) -> bool:
    """The trailer's magic."""
    trailer = _koly(content)
    return len(trailer) == _KOLY_SIZE and trailer.startswith(b"koly")


def dmg_virtual_size(content: Content) -> int:
    """0: the size is the sum of what its property list says, which qemu reads."""
    return 0
