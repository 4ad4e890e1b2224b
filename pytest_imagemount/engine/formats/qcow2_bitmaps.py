"""The persistent bitmaps of a qcow2, by which backup programs know what has changed: what they take in memory.

qemu loads every one of them when it opens an image, for reading only as well. One bit stands for as little as 512 bytes
of the disk, and a bitmap that is all ones takes no room in the file: some hundred of those are gigabytes.

Layout: qemu's docs/interop/qcow2.txt, "Bitmaps extension".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .content import Content

EXTENSION = 0x23852875
IN_USE = 1
"""The autoclear feature without which qemu takes no notice of them."""

_EXTENSION = struct.Struct(">IIQQ")  # bitmaps, reserved, bytes of the directory, its place
_ENTRY = struct.Struct(">QIIBBHI")  # table, its size, flags, type, bits of granularity, sizes of name and extra data
_MOST_DIRECTORY = 64 << 20
_MOST_BYTES = 128 << 20


def check_bitmaps(content: Content, extension: bytes, disk_size: int) -> None:
    """:raises ImageInvalid: the directory of bitmaps is damaged, or they would take too much memory"""
    if len(extension) < _EXTENSION.size:
        raise content.corrupt(f"its bitmaps extension has {len(extension)} bytes")
    count, _, length, place = _EXTENSION.unpack_from(extension)
    if length > _MOST_DIRECTORY:
        raise content.corrupt(f"its directory of bitmaps has {length} bytes; {_MOST_DIRECTORY} is the most")
    directory = content.read(length, place, "directory of bitmaps")
    at = total = 0
    for _ in range(count):
        if at + _ENTRY.size > length:
            raise content.corrupt(f"its directory of bitmaps has no room for {count} of them")
        *_, granularity, name, extra = _ENTRY.unpack_from(directory, at)
        total += -(-disk_size >> granularity) // 8
        at += (_ENTRY.size + name + extra + 7) & ~7
    if total > _MOST_BYTES:
        hint = "remove those that are not needed with `qemu-img bitmap --remove`, or convert it with `qemu-img convert`"
        raise content.invalid(f"its {count} bitmaps take {total} bytes of memory; {_MOST_BYTES} is the most", hint)
