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


def gpt_entry(number: int, kind: uuid.UUID, first: int, last: int, name: str = "") -> bytes:
    """One 128-byte entry; ``first`` and ``last`` are sectors, both of them in the partition."""
    encoded = name.encode("utf-16-le")
    return (kind.bytes_le + part_uuid(number).bytes_le + le(first, 8) + le(last, 8) + bytes(8) + encoded).ljust(
        128, b"\0"
    )


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


def mbr_disk(sectors: dict[int, bytes], *, size: int = 1 << 20) -> bytearray:
    """A disk of ``size`` bytes with these sectors by number."""
    disk = bytearray(size)
    for place, data in sectors.items():
        disk[place * 512 : place * 512 + len(data)] = data
    return disk
