"""Image files made of bytes, each the least of its format, with what may be wrong with it as an argument."""

from __future__ import annotations

import base64
import os
import struct
import uuid
from dataclasses import dataclass, field

import pytest

from pytest_imagemount.engine.image import Image, identify
from pytest_imagemount.errors import ImageInvalid

MIB = 1 << 20


def look(content: bytes, format: str | None = None, *, length: int | None = None) -> Image:
    """What the file is; ``length`` bytes long, with a hole behind ``content``."""
    fd = os.memfd_create("image")
    try:
        os.write(fd, content)
        if length is not None:
            os.truncate(fd, length)
        return identify(fd, "disk.img", format)
    finally:
        os.close(fd)


def refusal(content: bytes, kind: type[ImageInvalid] = ImageInvalid, *, length: int | None = None) -> str:
    """The text of the error that ``content`` gives, which must be of this very class."""
    with pytest.raises(ImageInvalid) as caught:
        look(content, length=length)
    assert type(caught.value) is kind
    assert str(caught.value).startswith("image 'disk.img': ")
    assert caught.value.hint
    return caught.value.reason


@dataclass
class Qcow2:
    """A qcow2 of 1 MiB: header, refcount table, refcount block, L1 table, one L2 table, one data cluster."""

    version: int = 3
    backing_offset: int = 0
    backing_size: int = 0
    cluster_bits: int = 16
    size: int = MIB
    encryption: int = 0
    l1_entries: int = 1
    l1_offset: int = 0x30000
    refcount_offset: int = 0x10000
    refcount_clusters: int = 1
    snapshots: int = 0
    snapshots_offset: int = 0
    incompatible: int = 0
    autoclear: int = 0
    refcount_order: int = 4
    header_length: int = 104
    extensions: list[tuple[int, bytes]] = field(default_factory=list)
    l1: list[int] = field(default_factory=lambda: [0x40000 | 1 << 63])
    l2: list[int] = field(default_factory=lambda: [0x50000 | 1 << 63])
    counted: int = 6
    length: int = 0x60000

    def build(self) -> bytes:
        header = struct.pack(
            ">4sIQIIQIIQQIIQ",
            b"QFI\xfb",
            self.version,
            self.backing_offset,
            self.backing_size,
            self.cluster_bits,
            self.size,
            self.encryption,
            self.l1_entries,
            self.l1_offset,
            self.refcount_offset,
            self.refcount_clusters,
            self.snapshots,
            self.snapshots_offset,
        )
        if self.version >= 3:
            header += struct.pack(
                ">QQQII", self.incompatible, 0, self.autoclear, self.refcount_order, self.header_length
            )
        for kind, data in self.extensions:
            header += struct.pack(">II", kind, len(data)) + data.ljust((len(data) + 7) & ~7, b"\0")
        image = bytearray(max(self.length, 0x60000))
        image[: len(header)] = header
        image[0x10000:0x10008] = struct.pack(">Q", 0x20000)
        image[0x20000 : 0x20000 + 2 * self.counted] = struct.pack(">H", 1) * self.counted
        image[0x30000 : 0x30000 + 8 * len(self.l1)] = struct.pack(f">{len(self.l1)}Q", *self.l1)
        image[0x40000 : 0x40000 + 8 * len(self.l2)] = struct.pack(f">{len(self.l2)}Q", *self.l2)
        return bytes(image[: self.length])


def qcow2_with_bitmaps(count: int, granularity: int, *, length: int | None = None, place: int = 0x50000) -> bytes:
    """A qcow2 of 1 MiB with bitmaps of 2 to the power of ``granularity`` bytes a bit."""
    directory = struct.pack(">QIIBBHI", 0x60000, 1, 2, 1, granularity, 0, 0) * count
    extension = struct.pack(">IIQQ", count, 0, len(directory) if length is None else length, place)
    image = bytearray(Qcow2(autoclear=1, extensions=[(0x23852875, extension)]).build())
    image[0x50000 : 0x50000 + len(directory)] = directory
    return bytes(image[:0x60000])


def qed(features: int = 0, *, cluster: int = 0x1000, table: int = 2, name: bytes = b"") -> bytes:
    header = struct.pack("<4sIIIQQQQQII", b"QED\0", cluster, table, 1, features, 0, 0, 0x1000, MIB, 64, len(name))
    return (header + name).ljust(0x3000, b"\0")


def qcow(*, backing: bytes = b"", size: int = MIB, cluster_bits: int = 12, encryption: int = 0) -> bytes:
    offset = 48 if backing else 0
    header = struct.pack(
        ">4sIQIIQBBHIQ", b"QFI\xfb", 1, offset, len(backing), 0, size, cluster_bits, 9, 0, encryption, 512
    )
    return (header + backing).ljust(1024, b"\0")


def vmdk(
    descriptor: str,
    *,
    sectors: int = 2048,
    directory: int = 21,
    at: int = 1,
    magic: bytes = b"KDMV",
    version: int = 1,
    grain: int = 128,
) -> bytes:
    header = struct.pack("<4sIIQQQQIQQQ", magic, version, 3, sectors, grain, at, 20, 512, 0, directory, 128)
    if magic == b"COWD":
        header = struct.pack("<4sIII", magic, 1, 3, sectors)
    image = bytearray(64 << 10)
    image[: len(header)] = header
    image[at * 512 : at * 512 + len(descriptor)] = descriptor.encode()
    return bytes(image)


OWN = '# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\nRW 2048 SPARSE "any name.vmdk"\n'


def vhd_footer(kind: int, size: int, data_offset: int = (1 << 64) - 1) -> bytes:
    """512 bytes, checksum right. 16 heads, 32 sectors: geometry that gives ``size`` for multiples of 256 KiB."""
    geometry = (size // 512 // 512, 16, 32)
    parts = (b"conectix", 2, 0x10000, data_offset, 0, b"test", 1, b"Wi2k", size, size, *geometry, kind)
    raw = bytearray(struct.pack(">8sIIQI4sI4sQQHBBI", *parts).ljust(512, b"\0"))
    raw[64:68] = struct.pack(">I", ~sum(raw) & 0xFFFFFFFF)
    return bytes(raw)


def dynamic_vhd(kind: int = 3, parent: str = "", *, cookie: bytes = b"cxsparse", entries: int = 0) -> bytes:
    footer = vhd_footer(kind, MIB, 512)
    header = struct.pack(">8sQQII", cookie, (1 << 64) - 1, 1536, 0x10000, entries)
    header = (header.ljust(64, b"\0") + parent.encode("utf-16-be")).ljust(1024, b"\0")
    return footer + header + bytes(512) + footer


def vhdx(
    items: dict[str, bytes], *, tables: tuple[int, ...] = (192 << 10,), block_table: int = 0, log: int = 0
) -> bytes:
    image = bytearray(2 * MIB)
    image[:8] = b"vhdxfile"
    regions = uuid.UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le + struct.pack("<QII", MIB, MIB, 1)
    if block_table:
        regions += uuid.UUID("2dc27766-f623-4200-9d64-115e9bfd4a08").bytes_le
        regions += struct.pack("<QII", 2 * MIB, block_table, 1)
    if log:
        image[(128 << 10) + 48 : (128 << 10) + 80] = b"i" * 16 + struct.pack("<HHIQ", 0, 1, log, 2 * MIB)
    for table in tables:
        head = b"regi" + bytes(4) + struct.pack("<II", len(regions) // 32, 0) + regions
        image[table : table + len(head)] = head
    image[MIB : MIB + 12] = b"metadata" + struct.pack("<HH", 0, len(items))
    at = 64 << 10
    for index, (guid, data) in enumerate(items.items()):
        entry = uuid.UUID(guid).bytes_le + struct.pack("<III", at, len(data), 0)
        image[MIB + 32 + index * 32 : MIB + 32 + index * 32 + 28] = entry
        image[MIB + at : MIB + at + len(data)] = data
        at += len(data)
    return bytes(image)


VHDX_PARAMETERS = "caa16737-fa36-4d43-b3b6-33f0aa44e76b"
VHDX_SIZE = "2fa54224-cd1b-4876-b211-5dbed83bf4b8"
VHDX_PARENT = "a8d35f2d-b30b-454d-abf7-d3d84834ab0c"
VHDX_ITEMS = {VHDX_PARAMETERS: struct.pack("<II", 1 << 25, 0), VHDX_SIZE: struct.pack("<Q", MIB)}


def vdi(
    *, kind: int = 1, version: int = 0x10001, parent: bytes = bytes(16), sector: int = 512, blocks: int = 1
) -> bytes:
    return struct.pack(
        "<64sIIIII256sIIIIIIIQIIII16s16s16s16s",
        *(b"<<< any text >>>", 0xBEDA107F, version, 400, kind, 0, b"", 512, 1024, 0, 0, 0, sector, 0, MIB),
        *(MIB, 0, blocks, 0, b"u" * 16, bytes(16), bytes(16), parent),
    ).ljust(1024, b"\0")


def parallels(
    magic: bytes = b"WithouFreSpacExt", *, version: int = 2, tracks: int = 2048, sectors: int = 2048, entries: int = 4
) -> bytes:
    return struct.pack("<16sIIIIIQIII", magic, version, 16, 32, tracks, entries, sectors, 0, 2048, 0).ljust(4096, b"\0")


def bochs(*, version: int = 0x20000, kind: bytes = b"Growing", entries: int = 512) -> bytes:
    head = b"Bochs Virtual HD Image".ljust(32, b"\0") + b"Redolog".ljust(16, b"\0") + kind.ljust(16, b"\0")
    size = struct.pack("<IQ", 0, MIB) if version == 0x20000 else struct.pack("<Q", MIB)
    return (head + struct.pack("<IIIII", version, 512, entries, 512, 4096) + size).ljust(4096, b"\0")


def cloop(*, block: int = 65536, blocks: int = 16) -> bytes:
    head = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
    return head.ljust(128, b"\0") + struct.pack(">II", block, blocks) + bytes(1024)


def dmg(start: bytes = b"", *, chunks: list[tuple[int, ...]] | None = None, xml: bytes = b"", **wrong: int) -> bytes:
    """A UDIF of 1 MiB, by default all zeros; ``chunks`` are kind, first sector, sectors, place, length."""
    entries = [(kind, 0, *rest) for kind, *rest in ([(0, 0, 2048, 0, 0)] if chunks is None else chunks)]
    block = struct.pack(">4sIQQQII", b"mish", 1, 0, 2048, 0, 0, 0).ljust(200, b"\0") + struct.pack(">I", len(entries))
    block += b"".join(struct.pack(">IIQQQQ", *entry) for entry in entries)
    xml = xml or b"<data>bm90aGluZw==</data> <data>\n" + base64.b64encode(block) + b"\n</data>"
    value = {"version": 4, "length": 512, "xml_at": 600, "xml_length": len(xml), "fork": 0, "sectors": 2048} | wrong
    body = (start.ljust(600, b"\0") + xml).ljust(1024, b"\0")
    trailer = struct.pack(">4sIII5Q", b"koly", value["version"], value["length"], 1, 0, 0, 100, 0, value["fork"])
    trailer = trailer.ljust(216, b"\0") + struct.pack(">QQ", value["xml_at"], value["xml_length"])
    return body + (trailer.ljust(492, b"\0") + struct.pack(">Q", value["sectors"])).ljust(512, b"\0")


WHOLE = {
    "qcow2": Qcow2().build(),
    "qcow": qcow(),
    "qed": qed(),
    "vmdk": vmdk(OWN),
    "vmdk of ESX": vmdk(OWN, magic=b"COWD"),
    "vpc": dynamic_vhd(),
    "vpc of fixed size": bytes(MIB) + vhd_footer(2, MIB),
    "vhdx": vhdx(VHDX_ITEMS),
    "vhdx with the second table alone": vhdx(VHDX_ITEMS, tables=(256 << 10,)),
    "vdi": vdi(),
    "parallels": parallels(),
    "parallels of old": parallels(b"WithoutFreeSpace", sectors=2048 | 7 << 32),
    "bochs": bochs(),
    "bochs of version 1": bochs(version=0x10000),
    "cloop": cloop(),
    "dmg": dmg(),
}
