"""What an image says of another file that it needs."""

from __future__ import annotations

from dataclasses import dataclass

BACKING, PARENT, DATA, EXTENT = "backing file", "parent disk", "external data file", "data"
"""The roles of files that qemu can be given: what the image is a difference to (a VMDK calls it its parent); where all
of its data is; one extent, a part of its data."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A file that an image names.

    ``role`` is :data:`BACKING`, :data:`PARENT`, :data:`DATA` or :data:`EXTENT`. ``name`` is a path as the image has it,
    fit for system calls. ``format`` is the format that the image gives it, None where it gives none. ``sectors`` is how
    long an extent is and ``first`` where in its file it starts, in sectors of 512 bytes; ``kind`` is its kind in the
    image's words.
    """

    role: str
    name: str
    format: str | None
    sectors: int = 0
    first: int = 0
    kind: str = ""
