"""DMG (UDIF): the trailer and the table of chunks checked. Source: qemu's block/dmg.c.

All of the table is checked, since qemu does not: version 7.2 reads behind its own table where the chunks do not cover
the disk, and a daemon that dies takes the other images of the process with it.
"""

from __future__ import annotations

import binascii
import re
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .content import Content

_KOLY_SIZE = 512
_KOLY = struct.Struct(">4sIII5Q")
_KOLY_XML = struct.Struct(">QQ")
_KOLY_XML_AT = 216
_KOLY_SECTORS_AT = 492

_SECTOR = 512
_MAX_XML = 16 << 20
_DATA = re.compile(rb"<data>(.*?)</data>", re.DOTALL)
_BLANKS = b" \t\r\n"
_MISH_AT = struct.Struct(">4sIQQQ")
_MISH_SIZE = 204
_CHUNK = struct.Struct(">IIQQQQ")
_MAX_CHUNK_BYTES = 64 << 20

_ZERO, _RAW, _IGNORED, _ZLIB, _BZIP2, _LZFSE = 0, 1, 2, 0x80000005, 0x80000006, 0x80000007
_READ = (_ZERO, _RAW, _IGNORED, _ZLIB, _BZIP2, _LZFSE)
_HOLES = (_ZERO, _IGNORED)
_NOT_READ = {0x80000004: "ADC", 0x80000008: "LZMA"}


def _koly(content: Content) -> bytes:
    return content.peek(_KOLY_SIZE, max(content.size - _KOLY_SIZE, 0))


def claims(content: Content) -> bool:
    """A UDIF trailer that is one in all respects, behind content that does not start as a disk does.

    The trailer must be of version 4, give its own length, and point at a property list or resource fork that lies in
    the file. A file with a boot signature in its first sector is taken as a raw disk all the same: the first bytes of a
    DMG are compressed data.
    """
    if not admits(content) or content.peek(2, 510) == b"\x55\xaa":
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


def admits(content: Content) -> bool:
    """The trailer's magic."""
    trailer = _koly(content)
    return len(trailer) == _KOLY_SIZE and trailer.startswith(b"koly")


def virtual_size(content: Content) -> int:
    """The virtual size in bytes of a DMG whose chunks cover all of its disk, one after the other."""
    trailer = _koly(content)
    data_at, *_, fork_length = _KOLY.unpack_from(trailer)[5:]
    (sectors,) = struct.unpack_from(">Q", trailer, _KOLY_SECTORS_AT)
    if fork_length:
        raise content.invalid("its table is in a resource fork, which is not read", "convert it with `hdiutil convert`")
    covered = 0
    for kind, start, count, offset, length in _chunks(content, trailer, data_at):
        if start != covered:
            raise content.corrupt(f"a chunk of it starts at sector {start} where sector {covered} is due")
        if kind not in _HOLES:
            _check_stored(content, kind, count, offset, length)
        covered += count
    if not sectors or covered < sectors:
        raise content.corrupt(f"its chunks cover {covered} of {sectors} sectors")
    return int(sectors) * _SECTOR


def _check_stored(content: Content, kind: int, count: int, offset: int, length: int) -> None:
    if max(count * _SECTOR, length) > _MAX_CHUNK_BYTES or (kind == _RAW and length != count * _SECTOR):
        raise content.corrupt(f"a chunk of it has {count} sectors in {length} bytes")
    content.require_inside(length, offset, "compressed data")


def _chunks(content: Content, trailer: bytes, data_at: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Kind, first sector, count of sectors, place and length in the file of each chunk that qemu keeps."""
    for block in _blocks(content, trailer):
        _, _, first, _, base = _MISH_AT.unpack_from(block)
        entries = block[_MISH_SIZE : _MISH_SIZE + (len(block) - _MISH_SIZE) // _CHUNK.size * _CHUNK.size]
        for kind, _, start, count, offset, length in _CHUNK.iter_unpack(entries):
            if kind in _NOT_READ:
                hint = "convert it with `hdiutil convert -format UDZO`"
                raise content.invalid(f"it is compressed with {_NOT_READ[kind]}, which qemu does not read", hint)
            if kind in _READ:
                yield kind, first + start, count, data_at + base + offset, length


def _blocks(content: Content, trailer: bytes) -> Iterator[bytes]:
    """The tables in the property list, which qemu does not parse either but looks through, up to the first NUL."""
    at, length = _KOLY_XML.unpack_from(trailer, _KOLY_XML_AT)
    if length > _MAX_XML:
        raise content.corrupt(f"its property list has {length} bytes; {_MAX_XML} is the most")
    text = content.read(length, at, "property list").partition(b"\0")[0]
    end = 0
    for found in _DATA.finditer(text):
        end = found.end()
        try:
            block = binascii.a2b_base64(found[1].translate(None, _BLANKS), strict_mode=True)
        except binascii.Error:
            raise content.corrupt("its property list has data that is not base64") from None
        if len(block) >= _MISH_SIZE + _CHUNK.size and block.startswith(b"mish"):
            yield block
    if b"<data>" in text[end:]:
        raise content.corrupt("its property list ends in the middle of data")
