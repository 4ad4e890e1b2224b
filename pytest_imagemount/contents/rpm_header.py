"""The header of an rpm package as databases hold it: an index of tags, then their data, all big endian.

Source: rpm's manual, "package format", section "header format"; databases leave out the magic.
"""

from __future__ import annotations

import struct

from .owned_paths import OwnedPaths

_INT32, _STRING, _STRING_ARRAY = 4, 6, 8
_NAME, _VERSION, _RELEASE, _EPOCH, _ARCH = 1000, 1001, 1002, 1003, 1022
_OLD_FILE_NAMES, _FOLDER_NUMBERS, _BASE_NAMES, _FOLDER_NAMES = 1027, 1116, 1117, 1118

_INTRO = struct.Struct(">II")
_ENTRY = struct.Struct(">IIII")
_MOST_ENTRIES = 65535  # as rpm itself
_LONGEST_PATH = 4096  # PATH_MAX


class RpmHeader:
    """A parsed header.

    :raises ValueError: it is corrupt; the text goes on after "the header"
    """

    def __init__(self, blob: bytes) -> None:
        if len(blob) < _INTRO.size:
            raise ValueError("is truncated")
        count, size = _INTRO.unpack_from(blob)
        start = _INTRO.size + count * _ENTRY.size
        if count > _MOST_ENTRIES or start + size > len(blob):
            raise ValueError("is truncated")
        self._data = blob[start : start + size]
        self._tags: dict[int, tuple[int, int, int]] = {}
        for index in range(count):
            tag, kind, offset, number = _ENTRY.unpack_from(blob, _INTRO.size + index * _ENTRY.size)
            self._tags.setdefault(tag, (kind, offset, number))
        self.name = self._text(_NAME)
        self.version = self._text(_VERSION)
        self.release = self._text(_RELEASE)
        self.arch = self._text(_ARCH) if _ARCH in self._tags else ""
        self.epoch = self._numbers(_EPOCH)[0] if self._numbers(_EPOCH) else None

    def files(self) -> OwnedPaths:
        """The paths, folders among them."""
        if _OLD_FILE_NAMES in self._tags:
            names = self._texts(_OLD_FILE_NAMES)
            return OwnedPaths([""], names, [0] * len(names))
        folders = self._texts(_FOLDER_NAMES)
        if any(len(folder) > _LONGEST_PATH for folder in folders):
            raise ValueError("has a folder name that no system takes")
        return OwnedPaths(folders, self._texts(_BASE_NAMES), self._numbers(_FOLDER_NUMBERS))

    def _text(self, tag: int) -> str:
        kind, offset, _ = self._tags.get(tag, (0, 0, 0))
        if kind != _STRING:
            raise ValueError(f"has no text with tag {tag}")
        return self._strings(offset, 1)[0]

    def _texts(self, tag: int) -> list[str]:
        kind, offset, number = self._tags.get(tag, (_STRING_ARRAY, 0, 0))
        if kind != _STRING_ARRAY:
            raise ValueError(f"has no list of texts with tag {tag}")
        return self._strings(offset, number)

    def _strings(self, offset: int, number: int) -> list[str]:
        found = []
        for _ in range(number):
            end = self._data.find(b"\0", offset)
            if end < 0:
                raise ValueError("has a text that does not end")
            found.append(self._data[offset:end].decode("utf-8", "surrogateescape"))
            offset = end + 1
        return found

    def _numbers(self, tag: int) -> tuple[int, ...]:
        kind, offset, number = self._tags.get(tag, (_INT32, 0, 0))
        if kind != _INT32 or offset + 4 * number > len(self._data):
            raise ValueError(f"has no list of numbers with tag {tag}")
        return struct.unpack_from(f">{number}I", self._data, offset)
