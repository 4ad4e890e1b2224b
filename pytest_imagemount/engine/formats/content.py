"""An image file's bytes as the format checkers take them: bounded reads, errors that name the image."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ImageInvalid, ImageUnsafe
from ..reader import FileReader
from ..text import printable

if TYPE_CHECKING:
    from .references import Reference

_HEAD_SIZE = 4096
_GET_A_WHOLE_COPY = "get a whole copy of it"
_MOST_TABLE = 128 << 20
"""Bytes of the largest table: that of a disk of 32 TiB in blocks of 1 MiB, 4 bytes for each."""


@dataclass(frozen=True, slots=True)
class Content:
    """The file behind an image, open at ``fd`` (not owned), of ``size`` bytes. ``head`` is its first 4 KiB.

    ``references`` gathers the files that the image names; None refuses it for the first of them.
    """

    fd: int
    name: str
    size: int
    is_block_device: bool
    head: bytes
    references: list[Reference] | None = None

    @classmethod
    def open_at(
        cls,
        fd: int,
        name: str,
        size: int,
        *,
        is_block_device: bool = False,
        references: list[Reference] | None = None,
    ) -> Content:
        """The content of ``fd``; reads its first bytes, which a dozen magic numbers are then looked for in."""
        return cls(fd, name, size, is_block_device, FileReader(fd, size).pread(_HEAD_SIZE, 0), references)

    def peek(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset``, fewer at the end of the file."""
        if offset + size <= len(self.head):
            return self.head[offset : offset + size]
        return FileReader(self.fd, self.size).pread(size, offset)

    def read(self, size: int, offset: int, what: str) -> bytes:
        """``size`` bytes from ``offset``, all of them. ``what`` names them in the error.

        :raises ImageInvalid: the file ends before them
        """
        self.require_inside(size, offset, what)
        data = self.peek(size, offset)
        if len(data) < size:
            raise self.invalid(f"the file ended while its {what} was read", _GET_A_WHOLE_COPY)
        return data

    def require_inside(self, size: int, offset: int, what: str) -> None:
        """:raises ImageInvalid: ``size`` bytes from ``offset`` are not all inside the file"""
        if offset + size > self.size:
            reason = f"truncated: its {what} ends at byte {offset + size}, the file at byte {self.size}"
            raise self.invalid(reason, _GET_A_WHOLE_COPY)

    def require_table(self, size: int, offset: int, what: str) -> None:
        """As :meth:`require_inside`, for a table that qemu reads into memory as a whole.

        A file with holes may be as long as any table claims to be, and takes no room itself.
        """
        self.require_inside(size, offset, what)
        if size > _MOST_TABLE:
            hint = "convert it with `qemu-img convert -O qcow2`, if you trust it"
            raise self.invalid(f"its {what} has {size} bytes; {_MOST_TABLE} is the most", hint)

    def invalid(self, reason: str, hint: str = "") -> ImageInvalid:
        """The error for content that cannot be used."""
        return ImageInvalid(image=self.name, reason=reason, hint=hint or "see what `qemu-img info` says of it")

    def corrupt(self, reason: str) -> ImageInvalid:
        """The error for content that a repair tool may mend."""
        return self.invalid(reason, "run `qemu-img check` on it, or get a whole copy of it")

    def refer(self, *references: Reference) -> None:
        """The image names other files, all of them for one role.

        :raises ImageUnsafe: it may not
        """
        if self.references is None:
            names = ", ".join(decode_name(os.fsencode(reference.name)) for reference in references[:8])
            hint = "or say which folder its files may be in: backing=[FOLDER], or `imagemount inspect --backing FOLDER`"
            raise self.unsafe(references[0].role, names, hint)
        self.references.extend(references)

    def unsafe(self, role: str, wanted: str, otherwise: str = "") -> ImageUnsafe:
        """The error for an image that names another file; ``role`` is what the file is to it."""
        name = f"{printable(wanted)!r}" if wanted else "a file that it does not name"
        hint = "make a self-contained copy of it with `qemu-img convert`, if you trust the image"
        return ImageUnsafe(
            image=self.name,
            reason=f"its {role} is another file, {name}, and an image that names other files is not opened",
            hint=f"{hint}, {otherwise}" if otherwise else hint,
        )


def file_name(raw: bytes) -> str:
    """A file name out of an image, as system calls take it; it ends at the first NUL, as it does for qemu."""
    return os.fsdecode(raw.partition(b"\0")[0])


def decode_name(raw: bytes) -> str:
    """A file name out of an image, as text that prints and travels as JSON."""
    return raw.decode("utf-8", "backslashreplace")
