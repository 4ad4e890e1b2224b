"""Disks made of bytes: a reader over them, and builders of partition tables that share no code with the readers."""

from __future__ import annotations

import uuid
import zlib
from dataclasses import dataclass

LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
SWAP = uuid.UUID("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f")
ROOT_X86_64 = uuid.UUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
ROOT_ARM64 = uuid.UUID("b921b045-1df0-41c3-af44-4c6f280d3fae")
DISK = uuid.UUID("11111111-2222-3333-4444-555555555555")


@dataclass(frozen=True)
class BytesReader:
    """A virtual disk in memory."""

    data: bytes | bytearray

    @property
    def size(self) -> int:
        return len(self.data)

    def pread(self, size: int, offset: int) -> bytes:
        assert size >= 0
        assert 0 <= offset < 1 << 63, "no reader can take such an offset"
        return bytes(self.data[offset : offset + size])


def part_uuid(number: int) -> uuid.UUID:
    """The GUID that the builder gives the partition of that number."""
    return uuid.UUID(int=0xABC0 + number)


def le(value: int, size: int) -> bytes:
    """Little-endian bytes."""
    return value.to_bytes(size, "little")


def gpt_entry(
    number: int, kind: uuid.UUID, first: int, last: int, name: str | bytes = "", *, attributes: int = 0
) -> bytes:
    """One 128-byte entry; ``first`` and ``last`` are sectors, both of them in the partition."""
    place = le(first, 8) + le(last, 8) + le(attributes, 8)
    encoded = name.encode("utf-16-le") if isinstance(name, str) else name
    return (kind.bytes_le + part_uuid(number).bytes_le + place + encoded).ljust(128, b"\0")


def gpt_header(
    place: int, alternate: int, usable: tuple[int, int], entries_at: int, entries: bytes, *, count: int, entry_size: int
) -> bytes:
    """A 92-byte header with its CRC."""
    fields = [le(place, 8), le(alternate, 8), le(usable[0], 8), le(usable[1], 8), DISK.bytes_le, le(entries_at, 8)]
    tail = b"".join(fields) + le(count, 4) + le(entry_size, 4) + le(zlib.crc32(entries), 4)
    start = b"EFI PART" + le(0x10000, 4) + le(92, 4)
    crc = zlib.crc32(start + bytes(8) + tail)
    return start + le(crc, 4) + bytes(4) + tail


def gpt_disk(
    entries: list[bytes], *, size: int = 1 << 20, sector: int = 512, count: int = 128, entry_size: int = 128
) -> bytearray:
    """A disk of ``size`` bytes with a protective MBR and both copies of a GPT that lists ``entries``."""
    disk = bytearray(size)
    last = size // sector - 1
    disk[446:462] = mbr_entry(0xEE, 1, min(last, 0xFFFFFFFF))
    disk[510:512] = b"\x55\xaa"
    array = b"".join(entry.ljust(entry_size, b"\0") for entry in entries).ljust(count * entry_size, b"\0")
    array_sectors = -(-len(array) // sector)
    usable = (2 + array_sectors, last - array_sectors - 1)
    options = {"count": count, "entry_size": entry_size}
    primary = gpt_header(1, last, usable, 2, array, **options)
    backup = gpt_header(last, 1, usable, last - array_sectors, array, **options)
    for at, data in ((1, primary), (2, array), (last, backup), (last - array_sectors, array)):
        disk[at * sector : at * sector + len(data)] = data
    return disk


def reseal(disk: bytearray, sector: int = 512) -> None:
    """Make both headers' and arrays' CRCs right again after a change to the primary copy, and copy it to the backup."""
    header = disk[sector : sector + 92]
    last = len(disk) // sector - 1
    count, entry_size = int.from_bytes(header[80:84], "little"), int.from_bytes(header[84:88], "little")
    array = bytes(disk[2 * sector : 2 * sector + count * entry_size])
    usable = (int.from_bytes(header[40:48], "little"), int.from_bytes(header[48:56], "little"))
    array_at = last - -(-len(array) // sector)
    options = {"count": count, "entry_size": entry_size}
    disk[sector : sector + 92] = gpt_header(1, last, usable, 2, array, **options)
    disk[last * sector : last * sector + 92] = gpt_header(last, 1, usable, array_at, array, **options)
    disk[array_at * sector : array_at * sector + len(array)] = array


def mbr_entry(kind: int, start: int, size: int, boot: int = 0) -> bytes:
    """One 16-byte entry; ``start`` and ``size`` in sectors."""
    return bytes([boot, 0, 0, 0, kind, 0, 0, 0]) + le(start, 4) + le(size, 4)


def mbr_sector(entries: list[bytes], disk_id: int = 0) -> bytes:
    """A sector with up to four entries and the boot signature."""
    return bytes(440) + le(disk_id, 4) + bytes(2) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"


def mbr_disk(sectors: dict[int, bytes], *, size: int = 1 << 20, sector: int = 512) -> bytearray:
    """A disk of ``size`` bytes with these sectors by number."""
    disk = bytearray(size)
    for place, data in sectors.items():
        disk[place * sector : place * sector + len(data)] = data
    return disk


def be(value: int, size: int) -> bytes:
    """Big-endian bytes."""
    return value.to_bytes(size, "big")


def apple_disk(
    entries: list[tuple[int, int, bytes, bytes]],
    *,
    size: int = 1 << 20,
    block: int = 512,
    declared: int | None = None,
    count: int | None = None,
) -> bytearray:
    """A disk with an Apple map of ``entries``: first block, blocks, name, type. ``declared`` is its driver's block."""
    disk = bytearray(size)
    disk[:4] = b"ER" + be(block if declared is None else declared, 2)
    for number, (start, blocks, name, kind) in enumerate(entries, start=1):
        entry = b"PM\0\0" + be(len(entries) if count is None else count, 4) + be(start, 4) + be(blocks, 4)
        entry += name.ljust(32, b"\0") + kind.ljust(32, b"\0")
        disk[number * block : number * block + len(entry)] = entry
    return disk


def bsd_label(
    slices: list[tuple[int, int, int]], *, sector: int = 512, count: int | None = None, good: bool = True
) -> bytes:
    """A BSD disklabel of ``slices``: first sector, sectors, type code."""
    head = le(0x82564557, 4) + bytes(36) + le(sector, 4) + bytes(88) + le(0x82564557, 4)
    tail = le(len(slices) if count is None else count, 2) + bytes(8)
    entries = b"".join(le(size, 4) + le(start, 4) + bytes(4) + le(kind, 1) + bytes(3) for start, size, kind in slices)
    return head + le(_xor(head + tail + entries) ^ (not good), 2) + tail + entries


def sun_sector(
    slices: list[tuple[int, int, int]], *, heads: int = 2, track: int = 4, sane: bool = True, count: int = 8
) -> bytes:
    """A Sun disklabel of ``slices``: first cylinder, sectors, tag. A cylinder has ``heads`` times ``track`` sectors."""
    tags = b"".join(be(kind, 2) + bytes(2) for _, _, kind in slices).ljust(32, b"\0")
    vtoc = be(1, 4) + bytes(8) + be(count, 2) + tags + bytes(14) + (be(0x600DDEEE, 4) if sane else bytes(4))
    sector = (bytes(128) + vtoc).ljust(436, b"\0") + be(heads, 2) + be(track, 2) + bytes(4)
    sector += b"".join(be(start, 4) + be(size, 4) for start, size, _ in slices).ljust(64, b"\0") + b"\xda\xbe"
    return sector + le(_xor(sector), 2)


def _xor(data: bytes) -> int:
    """The exclusive or of the little-endian 16-bit words."""
    total = 0
    for at in range(0, len(data), 2):
        total ^= int.from_bytes(data[at : at + 2], "little")
    return total


@dataclass
class CountingReader:
    """A virtual disk that counts what is read of it: ``reads`` calls, ``taken`` bytes, ``largest`` of them at once.

    ``size`` may be larger than ``data``: there are zeros behind it.
    """

    data: bytes | bytearray
    size: int
    reads: int = 0
    taken: int = 0
    largest: int = 0

    def pread(self, size: int, offset: int) -> bytes:
        assert size >= 0
        assert 0 <= offset < 1 << 63, "no reader can take such an offset"
        size = max(0, min(size, self.size - offset))
        self.reads += 1
        self.taken += size
        self.largest = max(self.largest, size)
        return bytes(self.data[offset : offset + size]).ljust(size, b"\0")


def iso_image(name: str, content: bytes) -> bytes:
    """An ISO 9660 image with the one file ``name``, such as ``HELLO.TXT;1``. Source: ECMA-119, sections 8 and 9."""

    def both(value: int, size: int) -> bytes:
        return le(value, size) + be(value, size)

    def record(called: bytes, place: int, length: int, *, folder: bool) -> bytes:
        fields = both(place, 4) + both(length, 4) + bytes([126, 1, 1, 0, 0, 0, 0]) + bytes([2 * folder, 0, 0])
        body = bytes(1) + fields + both(1, 2) + bytes([len(called)]) + called
        body += bytes((len(body) + 1) % 2)
        return bytes([len(body) + 1]) + body

    root, data, total = 20, 21, 22 + len(content) // 2048
    folder = record(b"\0", root, 2048, folder=True) + record(b"\1", root, 2048, folder=True)
    folder += record(name.encode(), data, len(content), folder=False)
    descriptor = b"\1CD001\1\0" + b" " * 32 + b"LIVE".ljust(32) + bytes(8) + both(total, 4) + bytes(32)
    descriptor += both(1, 2) * 2 + both(2048, 2) + both(10, 4) + le(18, 4) + le(0, 4) + be(19, 4) + be(0, 4)
    descriptor += record(b"\0", root, 2048, folder=True) + b" " * (128 * 4 + 37 * 3) + (b"0" * 16 + b"\0") * 4 + b"\1"
    table = bytes([1, 0]) + le(root, 4) + le(1, 2) + bytes(2)
    table_of_others = bytes([1, 0]) + be(root, 4) + be(1, 2) + bytes(2)
    sectors = [bytes(2048)] * 16 + [descriptor, b"\xffCD001\1", table, table_of_others, folder]
    return b"".join(sector.ljust(2048, b"\0") for sector in sectors) + content.ljust((total - data) * 2048, b"\0")
