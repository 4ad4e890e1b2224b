"""/proc/self/mountinfo as values. Source: proc_pid_mountinfo(5)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """One mount. ``device`` is the kernel's ``major:minor``."""

    mount_id: int
    device: str
    target: Path
    fstype: str
    source: str
    options: frozenset[str]


def mounts(text: bytes | None = None) -> list[MountEntry]:
    """Every mount of this process's mount namespace, in the kernel's order."""
    if text is None:
        text = Path("/proc/self/mountinfo").read_bytes()
    # Not splitlines: the kernel escapes blanks and line ends in names, but not a carriage return.
    return [_parse(line) for line in text.split(b"\n") if line]


def _parse(line: bytes) -> MountEntry:
    left, right = line.split(b" - ", 1)
    fields = left.split(b" ")
    fstype, source, super_options = (right.split(b" ") + [b"", b""])[:3]
    options = frozenset(fields[5].decode().split(",") + super_options.decode(errors="surrogateescape").split(","))
    target = Path(_unescape(fields[4]))
    return MountEntry(int(fields[0]), fields[2].decode(), target, _unescape(fstype), _unescape(source), options)


def _unescape(value: bytes) -> str:
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), value).decode(errors="surrogateescape")
