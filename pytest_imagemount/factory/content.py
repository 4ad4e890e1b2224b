"""What goes into a file system: files, folders, links and devices, with owners and modes, as plain values.

A content is a mapping from a relative path to an entry, or a folder on this machine. Both become a :class:`Tree`, in
which every parent folder is present and comes before what is in it, and which is in one order for equal content.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from ..errors import RequestInvalid

DEFAULT_TIME = 1_577_836_800
"""Time of everything whose time is not given, in seconds: 2020-01-01 00:00 UTC, unless SOURCE_DATE_EPOCH is set."""

_LAST_TIME = 2**31 - 1
_LAST_ID = 2**32 - 2
_NAME_LIMIT = 255
_TARGET_LIMIT = 4095


@dataclass(frozen=True, slots=True)
class File:
    """A regular file.

    ``data`` is its text (written as UTF-8), its bytes, or the path of a file of this machine that has them. ``mtime``
    is in seconds since 1970. ``xattrs`` maps a full attribute name (``"user.origin"``) to its value; ext2, ext3, ext4
    and squashfs can hold them.
    """

    data: str | bytes | Path = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int | None = None
    xattrs: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Length of the data in bytes."""
        if isinstance(self.data, Path):
            return self.data.stat().st_size
        return len(self.data.encode() if isinstance(self.data, str) else self.data)


@dataclass(frozen=True, slots=True)
class Directory:
    """A folder. The path ``"."`` is the root folder of the file system."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int | None = None


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link to ``target``, any text."""

    target: str
    uid: int = 0
    gid: int = 0
    mtime: int | None = None

    @property
    def mode(self) -> int:
        """The mode that Linux gives every symbolic link."""
        return 0o777


@dataclass(frozen=True, slots=True)
class Device:
    """A device node or a named pipe."""

    kind: Literal["char", "block", "fifo"]
    major: int = 0
    minor: int = 0
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int | None = None


@dataclass(frozen=True, slots=True)
class Hardlink:
    """One more name of the file at path ``target`` of the same content."""

    target: str


Node: TypeAlias = File | Directory | Symlink | Device
Entry: TypeAlias = Node | Hardlink
Folders: TypeAlias = Mapping[str, "list[tuple[str, str, Entry]]"]
Content: TypeAlias = Mapping[str, "str | bytes | Entry"] | str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Tree:
    """A content, checked. ``entries`` maps paths to entries, parents first, without the root folder.

    ``explicit`` says that the owners and modes were asked for one by one (a mapping), so a file system that cannot
    hold them refuses; those of a copied folder are dropped there, as ``cp -r`` does.
    """

    root: Directory
    entries: Mapping[str, Entry]
    explicit: bool = True

    def time(self, entry: Node) -> int:
        """Modification time of ``entry`` in seconds since 1970."""
        return default_time() if entry.mtime is None else entry.mtime

    def files(self) -> Iterator[File]:
        """Every regular file, once."""
        return (entry for entry in self.entries.values() if isinstance(entry, File))

    def by_folder(self) -> Folders:
        """Path of each folder (``""`` is the root) that is not empty, to name, path and entry of all directly in it."""
        found: dict[str, list[tuple[str, str, Entry]]] = {}
        for path, entry in self.entries.items():
            parent, _, name = path.rpartition("/")
            found.setdefault(parent, []).append((name, path, entry))
        return found

    def folders(self) -> Iterator[tuple[str, Directory]]:
        """Path and entry of every folder, parents first, the root as ``""`` first of all."""
        yield "", self.root
        for path, entry in self.entries.items():
            if isinstance(entry, Directory):
                yield path, entry

    def data_size(self, unit: int) -> int:
        """Bytes of all file data, each file rounded up to ``unit`` bytes."""
        return sum(-(-file.size // unit) * unit for file in self.files())

    def digest(self) -> str:
        """The same text for equal content, another for other content."""
        total = hashlib.sha256(repr((self.root, default_time())).encode())
        for path, entry in self.entries.items():
            total.update(repr((path, replace(entry, data=b"") if isinstance(entry, File) else entry)).encode())
            if isinstance(entry, File):
                total.update(_data_digest(entry.data))
        return total.hexdigest()


def default_time() -> int:
    """The time of everything whose time is not given, in seconds since 1970: SOURCE_DATE_EPOCH, or 2020-01-01.

    :raises RequestInvalid: SOURCE_DATE_EPOCH is not a whole number that every file system can hold
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return DEFAULT_TIME
    if not text.isdecimal() or int(text) > _LAST_TIME:
        raise RequestInvalid(argument="SOURCE_DATE_EPOCH", value=text, reason=f"give seconds from 0 to {_LAST_TIME}")
    return int(text)


def content_tree(content: Content | None) -> Tree:
    """``content``, a mapping or a folder of this machine, as a checked tree. None is the empty tree.

    :raises RequestInvalid: a path that is absolute, empty or has a ``..``, a file that is also a folder, a link to
        nothing, a value that no file system can hold
    """
    if content is None:
        return Tree(Directory(), {})
    if isinstance(content, Mapping):
        return _mapping_tree(content)
    from .folder import folder_tree

    return folder_tree(Path(content))


def _mapping_tree(content: Mapping[str, str | bytes | Entry]) -> Tree:
    root, given = Directory(), dict[str, Entry]()
    for path, value in content.items():
        entry = _entry(path, value)
        if path == ".":
            if not isinstance(entry, Directory):
                raise _invalid(path, "this is the root folder; give a Directory")
            root = entry
            continue
        _check_path(path)
        given[path] = entry
    for path in list(given):
        for parent in _parents(path):
            if not isinstance(given.setdefault(parent, Directory()), Directory):
                raise _invalid(path, f"{parent!r} is in the content too, and is not a folder")
    for path, entry in given.items():
        if isinstance(entry, Hardlink) and not isinstance(given.get(entry.target), File):
            raise _invalid(path, f"is a hard link to {entry.target!r}, which is no file of the content")
    return Tree(root, ordered(given))


def ordered(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """``entries`` in the order of a tree: parents first, hard links last, by name in each."""
    return dict(sorted(entries.items(), key=lambda item: (isinstance(item[1], Hardlink), item[0].split("/"))))


def _entry(path: str, value: object) -> Entry:
    if isinstance(value, (str, bytes)):
        return File(value)
    if isinstance(value, Hardlink):
        return value
    if not isinstance(value, (File, Directory, Symlink, Device)):
        kind = type(value).__name__
        raise _invalid(path, f"holds a {kind}; give text, bytes, File, Directory, Symlink, Hardlink or Device")
    _check_node(path, value)
    return value


def _check_node(path: str, node: Node) -> None:
    if not 0 <= node.mode <= 0o7777:
        raise _invalid(path, f"mode {node.mode:#o} is not from 0o0 to 0o7777")
    for name, value in (("uid", node.uid), ("gid", node.gid)):
        if not 0 <= value <= _LAST_ID:
            raise _invalid(path, f"{name} {value} is not from 0 to {_LAST_ID}")
    if node.mtime is not None and not 0 <= node.mtime <= _LAST_TIME:
        raise _invalid(path, f"mtime {node.mtime} is not from 0 to {_LAST_TIME} seconds")
    if isinstance(node, Symlink) and not 0 < len(os.fsencode(node.target)) <= _TARGET_LIMIT:
        raise _invalid(path, f"a link target has 1 to {_TARGET_LIMIT} bytes")
    if isinstance(node, Symlink) and "\0" in node.target:
        raise _invalid(path, "a link target has no NUL byte")
    if isinstance(node, Device) and (node.kind not in {"char", "block", "fifo"} or not _is_number(node)):
        raise _invalid(path, "a device is 'char', 'block' or 'fifo', its major below 4096, its minor below 1048576")
    if isinstance(node, File) and isinstance(node.data, Path) and not node.data.is_file():
        raise _invalid(path, f"its data is to come from {str(node.data)!r}, which is not a file")


def _is_number(device: Device) -> bool:
    return 0 <= device.major < 2**12 and 0 <= device.minor < 2**20


def _check_path(path: str) -> None:
    if not path:
        raise _invalid(path, "a path is not empty")
    if path.startswith("/"):
        raise _invalid(path, "a path is relative to the root of the file system: leave out the leading '/'")
    for part in path.split("/"):
        if part in {"", ".", ".."}:
            raise _invalid(path, f"a path has no part {part!r}")
        if "\0" in part or len(os.fsencode(part)) > _NAME_LIMIT:
            raise _invalid(path, f"a name has no NUL byte and at most {_NAME_LIMIT} bytes")


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _invalid(path: object, reason: str) -> RequestInvalid:
    return RequestInvalid(argument="content", value=repr(path), reason=reason)


def _data_digest(data: str | bytes | Path) -> bytes:
    if isinstance(data, Path):
        with data.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).digest()
