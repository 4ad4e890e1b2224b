"""Which process a number stands for: a pid is used again, a pid with its start time is not.

Source: proc_pid_stat(5), field 22, in clock ticks since the machine started.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class ProcessId:
    """One process. ``start`` is in clock ticks since the machine started; 0 where it was not to be learned."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """The process that has ``pid`` now."""
        return cls(pid, start_time(pid) or 0)

    @property
    def alive(self) -> bool:
        """Whether this very process runs; a zombie does not."""
        return self.start != 0 and start_time(self.pid) == self.start

    @property
    def started(self) -> float:
        """When it started, in seconds since the epoch."""
        for line in Path("/proc/stat").read_text().splitlines():
            if line.startswith("btime "):
                return int(line.split()[1]) + self.start / os.sysconf("SC_CLK_TCK")
        return 0.0


def start_time(pid: int) -> int | None:
    """Start of process ``pid`` in clock ticks since the machine started, None when there is no such process."""
    try:
        # The command's name, in brackets, may hold blanks and brackets of its own.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def command_of(pid: int) -> str:
    """The command line of process ``pid``, at most 120 characters; ``?`` where it cannot be read.

    A process without one (it has ended, starts its program just now, or is the kernel's own) is told by its name
    in brackets, as ``ps`` does.
    """
    try:
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
    return b" ".join(argv).decode(errors="replace").strip()[:120] or f"[{name}]"
