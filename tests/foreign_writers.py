"""Writers of the image formats that qemu reads and nothing here writes: dmg, bochs, cloop.

Each takes the bytes of a disk, a whole number of sectors, and gives those of the image. Layouts: qemu's block/dmg.c,
block/bochs.c and block/cloop.c.
"""

from __future__ import annotations

import plistlib
import struct
import zlib

_SECTOR = 512
_CHUNK = 256 << 10

_ZERO, _RAW, _ZLIB, _END = 0, 1, 0x80000005, 0xFFFFFFFF
_NOT_THERE = 0xFFFFFFFF


def dmg(disk: bytes) -> bytes:
    """A UDIF: the second chunk as it is, the others deflated, those of zeros left out."""
    data = bytearray()
    entries = []
    for at in range(0, len(disk), _CHUNK):
        chunk = disk[at : at + _CHUNK]
        kind, stored = (_RAW, chunk) if at == _CHUNK else (_ZLIB, zlib.compress(chunk))
        if not any(chunk):
            kind, stored = _ZERO, b""
        entries.append((kind, 0, at // _SECTOR, len(chunk) // _SECTOR, len(data), len(stored)))
        data += stored
    entries.append((_END, 0, len(disk) // _SECTOR, 0, len(data), 0))
    block = struct.pack(">4sIQQQII", b"mish", 1, 0, len(disk) // _SECTOR, 0, _CHUNK // _SECTOR + 8, 0)
    block += bytes(24) + struct.pack(">II", 2, 32) + bytes(128) + struct.pack(">I", len(entries))
    block += b"".join(struct.pack(">IIQQQQ", *entry) for entry in entries)
    resources = {"resource-fork": {"blkx": [{"Attributes": "0x0050", "Data": block, "ID": "0", "Name": "whole"}]}}
    xml = plistlib.dumps(resources)
    trailer = struct.pack(">4sIII5Q", b"koly", 4, 512, 1, 0, 0, len(data), 0, 0).ljust(216, b"\0")
    trailer += struct.pack(">QQ", len(data), len(xml))
    trailer = trailer.ljust(488, b"\0") + struct.pack(">IQ", 1, len(disk) // _SECTOR)
    return bytes(data) + xml + trailer.ljust(512, b"\0")


def bochs(disk: bytes) -> bytes:
    """A growing image of version 2; extents and sectors of zeros are left out."""
    extent = 64 << 10
    catalog, extents = [], bytearray()
    stored = 0
    for at in range(0, len(disk), extent):
        part = disk[at : at + extent].ljust(extent, b"\0")
        if not any(part):
            catalog.append(_NOT_THERE)
            continue
        catalog.append(stored)
        stored += 1
        bitmap = bytearray(_SECTOR)
        for sector in range(extent // _SECTOR):
            if any(part[sector * _SECTOR : (sector + 1) * _SECTOR]):
                bitmap[sector // 8] |= 1 << sector % 8
        extents += bitmap + part
    head = b"Bochs Virtual HD Image".ljust(32, b"\0") + b"Redolog".ljust(16, b"\0") + b"Growing".ljust(16, b"\0")
    head += struct.pack("<IIIIIIQ", 0x20000, 512, len(catalog), _SECTOR, extent, 0, len(disk))
    return head.ljust(512, b"\0") + struct.pack(f"<{len(catalog)}I", *catalog) + bytes(extents)


def cloop(disk: bytes) -> bytes:
    """Version 2: every block deflated."""
    script = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
    size = 64 << 10
    blocks = [zlib.compress(disk[at : at + size].ljust(size, b"\0")) for at in range(0, len(disk), size)]
    offsets = [128 + 8 + 8 * (len(blocks) + 1)]
    for block in blocks:
        offsets.append(offsets[-1] + len(block))
    table = struct.pack(f">II{len(offsets)}Q", size, len(blocks), *offsets)
    return script.ljust(128, b"\0") + table + b"".join(blocks)


WRITERS = {"dmg": dmg, "bochs": bochs, "cloop": cloop}
