"""rpm's database in Berkeley DB, a hash table (``Packages``; up to RHEL 8): the pages that hold keys and values.

Keys are package numbers, values headers; number 0 holds a counter. What is deleted is on no page. Source: the headers
``db_page.h`` and ``hash.h`` of Berkeley DB, whose file format is the same since version 4.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .reading import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..image_path import ImagePath

MOST_BYTES = 1 << 30
_HASH_MAGIC = 0x061561
_META_BYTES = 72
_PAGE_HEADER_BYTES = 26
_PAGE_OVERFLOW, _PAGES_OF_HASH = 7, (2, 13)  # unsorted, sorted
_ITEM_INLINE, _ITEM_OFF_PAGE = 1, 3


def read_headers(path: ImagePath) -> Iterator[bytes]:
    """The header of each package, by number."""
    try:
        pairs = _Pages(read_bytes(path, MOST_BYTES) or b"").pairs()
        found = {key: value for key, value in pairs if len(key) == 4 and any(key)}
    except struct.error as error:
        raise ValueError(str(error)) from None
    # A package number is in the byte order of the machine that wrote the database, as are the pages.
    yield from (found[key] for key in sorted(found))


class _Pages:
    def __init__(self, data: bytes) -> None:
        if len(data) < _META_BYTES:
            raise ValueError("is truncated")
        orders = [order for order in "<>" if struct.unpack_from(f"{order}I", data, 12)[0] == _HASH_MAGIC]
        if not orders:
            raise ValueError("is not a hash table of Berkeley DB")
        self._data, self._order = data, orders[0]
        (self._size,) = self._unpack("I", 20)
        if self._size < 512 or self._size > 65536 or self._size & (self._size - 1):
            raise ValueError(f"has pages of {self._size} bytes, which Berkeley DB has not")
        (last_page,) = self._unpack("I", 32)
        if (last_page + 1) * self._size > len(data):
            raise ValueError(f"is truncated: {last_page + 1} pages are not in its {len(data)} bytes")
        if data[24]:
            raise ValueError("is encrypted")
        self._seen: set[int] = set()

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        for start in range(self._size, len(self._data) - self._size + 1, self._size):
            if self._data[start + 25] in _PAGES_OF_HASH:
                items = list(self._items(start))
                yield from zip(items[::2], items[1::2], strict=False)

    def _items(self, start: int) -> Iterator[bytes]:
        """Keys and values in turn. They fill the page from its end, so that each ends where the one before starts."""
        (count,) = self._unpack("H", start + 20)
        end = self._size
        for offset in self._unpack(f"{count}H", start + _PAGE_HEADER_BYTES):
            if not _PAGE_HEADER_BYTES <= offset < end:
                raise ValueError(f"has a broken page number {start // self._size}")
            kind = self._data[start + offset]
            if kind == _ITEM_INLINE:
                yield self._data[start + offset + 1 : start + end]
            elif kind == _ITEM_OFF_PAGE:
                yield self._overflow(*self._unpack("II", start + offset + 4))
            else:
                raise ValueError(f"has an item of kind {kind}, which rpm does not write")
            end = offset

    def _overflow(self, page: int, length: int) -> bytes:
        """``length`` bytes from the chain of overflow pages that starts at number ``page``."""
        parts: list[bytes] = []
        left = length
        while left > 0:
            start = page * self._size
            if page in self._seen or start + self._size > len(self._data) or self._data[start + 25] != _PAGE_OVERFLOW:
                raise ValueError(f"has a broken chain of overflow pages at page number {page}")
            self._seen.add(page)
            (page,) = self._unpack("I", start + 16)
            (used,) = self._unpack("H", start + 22)
            if not 0 < used <= self._size - _PAGE_HEADER_BYTES:
                raise ValueError("has an overflow page of no use")
            parts.append(self._data[start + _PAGE_HEADER_BYTES : start + _PAGE_HEADER_BYTES + used])
            left -= used
        return b"".join(parts)[:length]

    def _unpack(self, codes: str, offset: int) -> tuple[int, ...]:
        return struct.unpack_from(f"{self._order}{codes}", self._data, offset)
