"""A folder of this machine as content: owners, modes, times and links as they are."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from ..errors import RequestInvalid
from .content import Device, Directory, Entry, File, Hardlink, Node, Symlink, Tree, ordered

if TYPE_CHECKING:
    from pathlib import Path

_KINDS = {stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFIFO: "fifo"}


def folder_tree(folder: Path) -> Tree:
    """Everything in ``folder``, as ``lstat`` sees it. File data is read when the image is built.

    Extended attributes of the namespace ``user`` and file capabilities come along.

    :raises RequestInvalid: ``folder`` is not a folder, cannot be read, or has a socket
    """
    if not folder.is_dir():
        raise RequestInvalid(argument="content", value=repr(str(folder)), reason="is not a folder that exists")
    entries: dict[str, Entry] = {}
    first_names: dict[tuple[int, int], str] = {}
    try:
        root = _node(folder)
        for path in _walk(folder):
            name, status = str(path.relative_to(folder)), path.lstat()
            identity = status.st_dev, status.st_ino
            if stat.S_ISREG(status.st_mode) and status.st_nlink > 1 and identity in first_names:
                entries[name] = Hardlink(first_names[identity])
            else:
                first_names[identity] = name
                entries[name] = _node(path)
    except OSError as error:
        raise RequestInvalid(
            argument="content", value=repr(str(folder)), reason=f"cannot be read: {error.strerror}: {error.filename}"
        ) from error
    assert isinstance(root, Directory)
    return Tree(root, ordered(entries), explicit=False)


def _walk(folder: Path) -> list[Path]:
    found = []
    for path in sorted(folder.iterdir()):
        found.append(path)
        if path.is_dir() and not path.is_symlink():
            found += _walk(path)
    return found


def _node(path: Path) -> Node:
    status = path.lstat()
    kind, mode = stat.S_IFMT(status.st_mode), stat.S_IMODE(status.st_mode)
    uid, gid, mtime = status.st_uid, status.st_gid, max(0, min(int(status.st_mtime), 2**31 - 1))
    if kind == stat.S_IFDIR:
        return Directory(mode, uid, gid, mtime)
    if kind == stat.S_IFLNK:
        return Symlink(str(path.readlink()), uid, gid, mtime)
    if kind == stat.S_IFREG:
        return File(path.absolute(), mode, uid, gid, mtime, _attributes(path))
    if kind in _KINDS:
        major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
        return Device(_KINDS[kind], major, minor, mode, uid, gid, mtime)  # type: ignore[arg-type]
    raise RequestInvalid(argument="content", value=repr(str(path)), reason="is a socket; leave it out")


def _attributes(path: Path) -> dict[str, bytes]:
    names = [name for name in os.listxattr(path) if name.startswith("user.") or name == "security.capability"]
    return {name: os.getxattr(path, name) for name in sorted(names)}
