"""The bytes of a virtual disk, whatever holds them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Window:
    """A run of bytes on a disk. ``offset`` and ``size`` are in bytes."""

    offset: int
    size: int

    @property
    def end(self) -> int:
        """The first byte past the window."""
        return self.offset + self.size


class Reader(Protocol):
    """Random access to a virtual disk of ``size`` bytes."""

    @property
    def size(self) -> int: ...

    def pread(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset``; fewer only at the end of the disk."""
        ...


@dataclass(frozen=True, slots=True)
class FileReader:
    """A disk that is a file or a block device, open at ``fd`` (not owned)."""

    fd: int
    size: int

    def pread(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset``; fewer only at the end of the disk."""
        size = max(0, min(size, self.size - offset))
        parts = []
        while size:
            part = os.pread(self.fd, size, offset)
            if not part:
                break
            parts.append(part)
            size, offset = size - len(part), offset + len(part)
        return b"".join(parts)
