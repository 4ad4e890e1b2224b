"""xfs by mkfs.xfs with a prototype file, completed by xfs_db.

A prototype has owners and modes, so no privilege is needed; it has no sticky bit, no times and no hard links, and
white space separates its words. xfs_db sets mode and times afterwards, with correct checksums.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from ... import programs
from ...errors import ProgramFailed, RequestInvalid
from ..content import Device, Directory, Hardlink, Symlink, default_time
from ..sizes import MIB
from ..staging import write_data
from .modes import full_mode
from .volume import FilesystemKind, Volume

if TYPE_CHECKING:
    from pathlib import Path

    from ..content import Entry, Folders, Node, Tree

_KINDS = {"char": "c", "block": "b", "fifo": "p"}
# Since Linux 5.10 a time on disk counts nanoseconds from the lowest signed 32-bit second.
_EPOCH_ON_DISK = 2**31


def _make(volume: Volume, target: Path, scratch: Path) -> None:
    for path, entry in volume.tree.entries.items():
        _check_words(path, entry)
    sector = ["-s", f"size={volume.sector_size}"]
    label = ["-L", volume.label] if volume.label else []
    # The prototype names its data by words, so without the folder's own path, which may have spaces in it.
    folder = os.open(scratch, os.O_RDONLY | os.O_DIRECTORY)
    try:
        prototype = scratch / "prototype"
        prototype.write_bytes(_prototype(volume.tree, scratch, folder).encode("utf-8", "surrogateescape"))
        argv = ["mkfs.xfs", "-q", "-f", "-m", f"uuid={volume.uuid}", "-p", str(prototype), *sector, *label]
        programs.run([*argv, *volume.options, str(target)], extra_environment=volume.environment(), pass_fds=(folder,))
    finally:
        os.close(folder)
    _complete(volume, target)
    _verify(volume, target)


def _check_words(path: str, entry: Entry) -> None:
    texts = [*path.split("/"), *([entry.target] if isinstance(entry, Symlink) else [])]
    for text in texts:
        if any(character.isspace() for character in text) or text.startswith(":") or text == "$" or '"' in text:
            reason = (
                f"xfs is made from a prototype of words, which cannot have {text!r}: white space, a double quote, "
                "a leading colon or '$' alone; rename it, or take ext4"
            )
            raise RequestInvalid(argument="content", value=repr(path), reason=reason)


def _prototype(tree: Tree, scratch: Path, folder: int) -> str:
    lines = ["none", "0 0", f"d{_permissions(tree.root)}"]
    _write_folder(tree.by_folder(), "", lines, scratch, folder)
    return "\n".join([*lines, ""])


def _write_folder(tree: Folders, path: str, lines: list[str], scratch: Path, folder: int) -> None:
    for name, inner, entry in tree.get(path, ()):
        assert not isinstance(entry, Hardlink)
        permissions = _permissions(entry)
        if isinstance(entry, Directory):
            lines.append(f"{name} d{permissions}")
            _write_folder(tree, inner, lines, scratch, folder)
        elif isinstance(entry, Symlink):
            lines.append(f"{name} l{permissions} {entry.target}")
        elif isinstance(entry, Device):
            numbers = "" if entry.kind == "fifo" else f" {entry.major} {entry.minor}"
            lines.append(f"{name} {_KINDS[entry.kind]}{permissions}{numbers}")
        else:
            data = f"data-{len(lines)}"
            write_data(entry, scratch / data)
            lines.append(f"{name} -{permissions} /proc/self/fd/{folder}/{data}")
    lines.append("$")


def _permissions(node: Node) -> str:
    setuid, setgid = "u" if node.mode & 0o4000 else "-", "g" if node.mode & 0o2000 else "-"
    return f"{setuid}{setgid}{node.mode & 0o777:03o} {node.uid} {node.gid}"


def _nodes(tree: Tree) -> list[tuple[str, Node]]:
    rest = [(path, entry) for path, entry in tree.entries.items() if not isinstance(entry, Hardlink)]
    return [("", tree.root), *rest]


def _complete(volume: Volume, target: Path) -> None:
    # The hidden inodes of the realtime section have the time of the making too.
    script = []
    for field in ("rbmino", "rsumino"):
        script += ["sb 0", f"addr {field}", *_time_commands(default_time())]
    for path, node in _nodes(volume.tree):
        script += [f"path /{path}", f"write core.mode 0{full_mode(node):o}", *_time_commands(volume.tree.time(node))]
    programs.run(
        ["xfs_db", "-x", str(target)], stdin=_lines(script), extra_environment=volume.environment(), timeout=600
    )


def _time_commands(seconds: int) -> list[str]:
    nanoseconds = (seconds + _EPOCH_ON_DISK) * 10**9
    fields = "core.atime.sec", "core.mtime.sec", "core.ctime.sec", "v3.crtime.sec"
    return [f"write {field} {nanoseconds}" for field in fields]


def _verify(volume: Volume, target: Path) -> None:
    """Read every inode back: xfs_db ends with status 0 when a path is not there and when a value is not taken."""
    fields = "core.mode core.uid core.gid core.mtime.sec"
    script = [line for path, _ in _nodes(volume.tree) for line in (f"path /{path}", f"print {fields}")]
    argv = ["xfs_db", "-r", str(target)]
    output = programs.run(argv, stdin=_lines(script), extra_environment=volume.environment())
    found = [line for line in output.decode("utf-8", "replace").splitlines() if line.startswith("core.")]
    for index, (path, node) in enumerate(_nodes(volume.tree)):
        moment = time.strftime("%a %b %e %H:%M:%S %Y", time.gmtime(volume.tree.time(node)))
        expected = [
            f"core.mode = 0{full_mode(node):o}",
            f"core.uid = {node.uid}",
            f"core.gid = {node.gid}",
            f"core.mtime.sec = {moment}",
        ]
        if found[index * 4 : index * 4 + 4] != expected:
            said = f"{path or '.'!r} is {found[index * 4 : index * 4 + 4]} in the image, not {expected}"
            raise ProgramFailed(argv=argv, returncode=0, reason="the content is not as asked for", stderr=said)


def _lines(script: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in script).encode("utf-8", "surrogateescape")


def _default_size(tree: Tree) -> int:
    return max(300 * MIB, 128 * MIB + tree.data_size(4096) * 9 // 8 + len(tree.entries) * 2048)


KIND = FilesystemKind(
    make=_make,
    default_size=_default_size,
    minimum=300 * MIB,
    label_limit=12,
    lacks=frozenset({"hardlinks", "xattrs"}),
)
