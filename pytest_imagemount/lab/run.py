"""Run one command in a lab, from the request to the exit status."""

from __future__ import annotations

import marshal
import os
import re
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..capabilities import require
from ..errors import RequestInvalid
from ..machine import Machine
from . import TIMED_OUT
from .guest.mounts import SCRATCH
from .kernel import PACKAGE_ROOT, running_kernel
from .relay import LabTimeout, Relay
from .streams import Streams

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_LEAST_MEMORY = 128 << 20
_MOST_FILES = 1 << 20  # the kernel's own default bound, fs.nr_open
# The kernel's own file systems are there.
_NEVER_MOUNTED = ("/proc", "/sys", "/dev", "/run")


@dataclass(frozen=True)
class Request:
    """What to run; see :func:`pytest_imagemount.lab.run_in_lab`."""

    command: tuple[str, ...]
    cwd: Path
    environment: Mapping[str, str]
    memory: str
    timeout: float | None
    read_write: tuple[Path, ...]
    read_only: tuple[Path, ...]
    modules: tuple[str, ...]
    streams: tuple[int, int, int]


def run(request: Request) -> int:
    """Run it; :func:`pytest_imagemount.lab.run_in_lab` says what comes of it."""
    deadline = None if request.timeout is None else time.monotonic() + request.timeout
    require("lab")
    memory = parse_memory(request.memory)
    streams = Streams.of(*request.streams)
    config = marshal.dumps(_config(request, streams))
    with running_kernel(memory) as kernel:
        relay = Relay(kernel, streams, config)
        try:
            return relay.run(deadline)
        except LabTimeout:
            relay.say(f"not done after {request.timeout:g} s; the command and its kernel were killed")
            return TIMED_OUT


def parse_memory(text: str) -> int:
    """Bytes of ``512M``, ``2G``."""
    found = re.fullmatch(r"(\d+)([KMG]?)", text.strip().upper().removesuffix("B"))
    if not found:
        raise RequestInvalid(argument="memory", value=text, reason="give a number and K, M or G, such as 2G")
    size = int(found[1]) * _UNITS[found[2]]
    if size < _LEAST_MEMORY:
        reason = f"the kernel and Python need {_LEAST_MEMORY >> 20}M at least"
        raise RequestInvalid(argument="memory", value=text, reason=reason)
    return size


def _config(request: Request, streams: Streams) -> dict[str, object]:
    """What the guest is told, of types that marshal knows: both ends are the same Python."""
    if not request.command:
        raise RequestInvalid(argument="command", value="", reason="name a program to run")
    cwd = _folder("cwd", request.cwd)
    environment = {"DM_DISABLE_UDEV": "1", "IMAGEMOUNT_IN_LAB": "1", **request.environment}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    folders = shared_folders(
        cwd,
        [_folder("read_write", folder) for folder in request.read_write],
        [*(_folder("read_only", folder) for folder in request.read_only), *_own_folders()],
    )
    return {
        "command": [_bytes("command", word) for word in request.command],
        "environment": {_bytes("environment", name): _bytes(name, value) for name, value in environment.items()},
        "cwd": os.fsencode(cwd),
        "folders": [(str(folder), writable) for folder, writable in folders.items()],
        "modules": list(request.modules),
        "terminals": streams.terminals,
        "size": streams.size(),
        "hostname": os.uname().nodename,
        "umask": int(Machine.this().status("Umask") or "022", 8),
        "open_files": [min(limit, _MOST_FILES) if limit >= 0 else _MOST_FILES for limit in limits],
    }


def shared_folders(cwd: Path, read_write: Iterable[Path], read_only: Iterable[Path]) -> dict[Path, bool]:
    """The folders of the machine to mount in the lab, and whether each is writable there.

    ``cwd`` and the writable ones; of the others those that a scratch folder hides. All are absolute and without links.
    """
    writable = {folder for folder in (cwd, *read_write) if folder != Path("/")}
    hidden = {folder for folder in read_only if _is_hidden(folder)}
    return {
        **{folder: False for folder in hidden if not any(folder.is_relative_to(other) for other in writable)},
        **dict.fromkeys(writable, True),
    }


def _own_folders() -> Iterator[Path]:
    """Where the running Python and this package lie."""
    for place in (sys.prefix, sys.base_prefix, PACKAGE_ROOT):
        yield Path(place).resolve()


def _is_hidden(folder: Path) -> bool:
    return any(Path(scratch).resolve() in folder.parents for scratch in SCRATCH)


def _folder(argument: str, folder: Path) -> Path:
    """The real path of ``folder``, which must be one that can be mounted in the lab."""
    real = folder.resolve()
    if not real.is_dir():
        raise RequestInvalid(argument=argument, value=str(folder), reason="there is no such folder")
    if argument == "read_write" and real == Path("/"):
        reason = "the machine's root stays read-only in the lab; name the folders to write to"
        raise RequestInvalid(argument=argument, value=str(folder), reason=reason)
    if str(real) in _NEVER_MOUNTED or any(real.is_relative_to(place) for place in ("/proc", "/sys")):
        raise RequestInvalid(argument=argument, value=str(folder), reason="the lab has a file system of its own there")
    return real


def _bytes(argument: str, value: str) -> bytes:
    if "\0" in value:
        raise RequestInvalid(argument=argument, value=repr(value), reason="it holds a null character")
    return os.fsencode(value)
