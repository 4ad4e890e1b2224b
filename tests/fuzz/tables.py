"""Fuzzing the readers of partition tables, and what is chosen from what they give."""

from __future__ import annotations

import contextlib
import json

from pytest_imagemount.engine.superblock import Superblock
from pytest_imagemount.engine.tables.discoverable import discoverable_roles
from pytest_imagemount.engine.tables.read import PartitionTable, read_table
from pytest_imagemount.engine.tables.selection import select
from pytest_imagemount.errors import ImageMountError
from tests.unit.disks import (
    ESP,
    LINUX,
    ROOT_X86_64,
    CountingReader,
    apple_disk,
    bsd_label,
    gpt_disk,
    gpt_entry,
    mbr_disk,
    mbr_entry,
    mbr_sector,
    reseal,
    sun_sector,
)

MOST_BYTES = 64 << 20
"""Read of a disk at most: four sector sizes, three copies of a GPT each, 4 MiB of entries at most each."""
MOST_AT_ONCE = 4 << 20
MOST_READS = 20_000
_LARGE = 1 << 44


def seeds() -> dict[str, bytes]:
    """Small disks, one for each kind of table, by name."""
    logical = {
        0: mbr_sector(
            [mbr_entry(0x83, 64, 30, boot=0x80), mbr_entry(0x05, 200, 100), mbr_entry(0xA5, 100, 99)], 0xCAFE
        ),
        101: bsd_label([(110, 20, 7), (140, 20, 1), (100, 99, 0)]),
        200: mbr_sector([mbr_entry(0x83, 8, 5), mbr_entry(0x05, 20, 10)]),
        220: mbr_sector([mbr_entry(0x82, 1, 5), mbr_entry(0x05, 40, 10)]),
        240: mbr_sector([mbr_entry(0x0C, 1, 5)]),
    }
    entries = [
        gpt_entry(1, ESP, 64, 99, "boot"),
        gpt_entry(2, ROOT_X86_64, 100, 200, "W\u00fcrzel", attributes=1 << 60),
    ]
    bsd = mbr_disk({1: bsd_label([(16, 50, 7), (80, 50, 1)])}, size=128 << 10)
    apple = [(1, 63, b"Apple", b"Apple_partition_map"), (64, 100, b"MacOS", b"Apple_HFS")]
    built = {
        "mbr": mbr_disk(logical, size=160 << 10),
        "gpt": gpt_disk(entries, size=128 << 10),
        "gpt-few": gpt_disk(entries, size=128 << 10, count=8, entry_size=512),
        "gpt-4096": gpt_disk([gpt_entry(1, LINUX, 6, 20)], size=160 << 10, sector=4096),
        "apple": apple_disk(apple, size=128 << 10),
        "bsd": bsd,
        "sun": mbr_disk({0: sun_sector([(0, 80, 2), (10, 160, 0x82), (0, 256, 5)])}, size=128 << 10),
    }
    return {name: bytes(disk) for name, disk in built.items()}


def fuzz_one(data: bytes) -> None:
    """Read ``data`` as a disk, as the head of a large one, and as a GPT whose checksums are right.

    :raises AssertionError: a table led out of its disk, more was read than may be, or text is not safe to print
    """
    _check(data, len(data))
    _check(data, _LARGE)
    if data[512:520] == b"EFI PART" and (sealed := _sealed(data)) is not None:
        _check(sealed, len(sealed))


def _sealed(data: bytes) -> bytes | None:
    """The same with right checksums in both copies, where there is room for them."""
    disk = bytearray(data)
    count, size = int.from_bytes(data[592:596], "little"), int.from_bytes(data[596:600], "little")
    if len(disk) < 4096 or 1024 + 2 * count * size > len(disk):
        return None
    reseal(disk)
    return bytes(disk)


def _check(data: bytes, size: int) -> None:
    reader = CountingReader(data, size)
    try:
        table = read_table(reader, "fuzzed.img")
    except ImageMountError:
        table = None
    assert reader.taken <= MOST_BYTES
    assert reader.largest <= MOST_AT_ONCE
    assert reader.reads <= MOST_READS
    if table is not None:
        _check_table(table, size)
        _check_choices(table)


def _check_table(table: PartitionTable, size: int) -> None:
    numbers = [partition.number for partition in table.partitions]
    assert len(set(numbers)) == len(numbers)
    for partition in table.partitions:
        assert 0 <= partition.window.offset < partition.window.end <= size
        assert partition.number >= 1
    assert all(char.isprintable() or char == "\n" for char in table.render())
    assert json.loads(json.dumps(table.to_json()).encode("ascii"))["kind"] == table.kind
    assert len(json.dumps([table.render(), table.to_json()])) < 1 << 20
    assert set(discoverable_roles(table).values()) <= set(table.partitions)


def _check_choices(table: PartitionTable) -> None:
    found = {one.window: Superblock(("ext4", "vfat")[one.number % 2], "filesystem") for one in table.partitions[:3]}
    first = table.partitions[0] if table.partitions else None
    wishes: list[int | str] = [1, 5, "auto", "TYPE=root", f"PARTLABEL={first.label if first else 'x'}"]
    for wanted in wishes:
        with contextlib.suppress(ImageMountError):
            chosen = select(table, wanted, "fuzzed.img", probe=found.get)
            assert chosen in table.partitions
