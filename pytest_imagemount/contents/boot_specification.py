"""Entries of the Boot Loader Specification: ``loader/entries/*.conf`` and unified kernel images."""

from __future__ import annotations

import fnmatch
import struct
from functools import cmp_to_key
from typing import TYPE_CHECKING, NamedTuple

from .assignments import parse_assignments
from .boot_entry import MOST_BYTES, BootEntry, one_line
from .reading import read_text, regular_files
from .versions import compare_rpm

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..image_path import ImagePath

_PE_OFFSET_PLACE = 0x3C
_SECTION = struct.Struct("<8sIIII")  # name, virtual size, virtual address, size in the file, offset in the file
_SECTION_STEP = 40
_MOST_SECTIONS = 256


class _Sortable(NamedTuple):
    file_name: str
    fields: dict[str, str]
    entry: BootEntry


def text_entries(folder: ImagePath) -> tuple[BootEntry, ...]:
    """The entries of ``folder/loader/entries``, the first in the menu first.

    As the specification sorts them: those with a sort key by that, then newer versions first, then the file names,
    newer first. What ``default`` of loader.conf matches comes before all.
    """
    found = [_text_entry(path) for path in regular_files(folder / "loader/entries") if path.suffix == ".conf"]
    found.sort(key=cmp_to_key(_menu_order))
    default = _fields(read_text(folder / "loader/loader.conf", MOST_BYTES) or "").get("default", "")
    found.sort(key=lambda each: not fnmatch.fnmatchcase(each.file_name, default or "\0"))
    return tuple(each.entry for each in found)


def unified_kernels(folder: ImagePath) -> tuple[BootEntry, ...]:
    """The unified kernel images of ``folder/EFI/Linux``, by file name, newer versions first."""
    images = [path for path in regular_files(folder / "EFI/Linux") if path.suffix.lower() == ".efi"]
    newest_first = sorted(images, key=lambda path: cmp_to_key(compare_rpm)(path.name), reverse=True)
    return tuple(_unified_kernel(path) for path in newest_first)


def _text_entry(path: ImagePath) -> _Sortable:
    text = read_text(path, MOST_BYTES) or ""
    fields = _fields(text)
    title = fields.get("title") or path.stem
    initrd = tuple(_values(text, "initrd"))
    linux = fields.get("linux") or fields.get("uki") or fields.get("efi")
    return _Sortable(path.name, fields, BootEntry(title, linux, initrd, one_line(" ".join(_values(text, "options")))))


def _fields(text: str) -> dict[str, str]:
    return dict(_lines(text))


def _values(text: str, wanted: str) -> Iterable[str]:
    return (value for name, value in _lines(text) if name == wanted)


def _lines(text: str) -> Iterable[tuple[str, str]]:
    for line in text.split("\n"):
        name, *value = line.split(maxsplit=1)[:2] or [""]
        if name and not name.startswith("#"):
            yield name, value[0].strip() if value else ""


def _menu_order(a: _Sortable, b: _Sortable) -> int:
    key_a, key_b = a.fields.get("sort-key", ""), b.fields.get("sort-key", "")
    if bool(key_a) != bool(key_b):
        return -1 if key_a else 1
    if key_a and key_a != key_b:
        return -1 if key_a < key_b else 1
    newer = compare_rpm(b.fields.get("version", ""), a.fields.get("version", "")) if key_a else 0
    return newer or compare_rpm(b.file_name, a.file_name)


def _unified_kernel(path: ImagePath) -> BootEntry:
    sections = _pe_sections(path, {".cmdline", ".osrel", ".uname"})
    release = parse_assignments(sections.get(".osrel", "").replace("\0", ""))
    title = release.get("PRETTY_NAME") or path.stem
    return BootEntry(title, str(path), (), one_line(sections.get(".cmdline", "")))


def _pe_sections(path: ImagePath, wanted: set[str]) -> Mapping[str, str]:
    """The text of sections of a PE file; of what is none, nothing. Source: Microsoft's PE format, "section table"."""
    found: dict[str, str] = {}
    with path.open("rb") as file:
        head = file.read(1 << 16)
        if not head.startswith(b"MZ") or len(head) < _PE_OFFSET_PLACE + 4:
            return found
        (start,) = struct.unpack_from("<I", head, _PE_OFFSET_PLACE)
        if head[start : start + 4] != b"PE\0\0" or len(head) < start + 24:
            return found
        (count,) = struct.unpack_from("<H", head, start + 6)
        (optional,) = struct.unpack_from("<H", head, start + 20)
        for number in range(min(count, _MOST_SECTIONS)):
            place = start + 24 + optional + number * _SECTION_STEP
            if place + _SECTION.size > len(head):
                break
            name, used, _, size, offset = _SECTION.unpack_from(head, place)
            title = name.rstrip(b"\0").decode("ascii", "replace")
            if title in wanted:
                file.seek(offset)
                found.setdefault(title, file.read(min(used, size, MOST_BYTES)).decode("utf-8", "backslashreplace"))
    return found
