"""Reading the facts of files: of one, and of a whole tree as a stream in one order.

A folder is opened by its path inside the image, and what is in it by single names below that descriptor, never through
a link. Then every fact of a file is of one descriptor. So a tree that changes meanwhile is an error, or gives a file
that it had for a moment, and never one of this machine.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from .confined import pinned
from .file_facts import FileFacts
from .owner_names import owner_names_or_none
from .xattrs import read_xattrs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .file_facts import FileType
    from .image_path import ImagePath

    Open = Callable[[int], int]

_TYPES: dict[int, FileType] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_LOOK = os.O_PATH | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_CHUNK = 1 << 20
_BATCH = 256
"""Files of a folder that are read before the first of them is given: no descriptor is open while a reader waits."""

_Identity = tuple[int, int]
_Entry = tuple[str, bool]
"""A name in a folder, and whether it is a regular file."""


class _Found(NamedTuple):
    """A file that was read; ``xattrs`` is None where the helper is to be asked for them."""

    path: str
    status: os.stat_result
    sha256: str | None
    target: str | None
    xattrs: dict[str, bytes] | None


@dataclass(frozen=True, slots=True)
class _Folder:
    """A folder still to be listed. ``path`` is in the image, ``shown`` in the facts; neither ends in a slash."""

    path: str
    shown: str
    identity: _Identity


def facts_of(path: ImagePath, *, follow: bool, content: bool, times: bool) -> FileFacts:
    """The facts of one file; not ``follow``: of a link itself.

    :param content: whether a regular file is read, for its SHA-256
    :param times: whether the time of the last change is a fact
    """
    facts, _ = _Reader(path, "", content=content, times=times).one(path, str(path), follow=follow)
    return facts


def facts_below(top: ImagePath, *, content: bool, times: bool, skip: Callable[[str], bool]) -> Iterator[FileFacts]:
    """The facts of ``top`` and all below it, each folder before what is in it, the names in a folder sorted.

    Paths start at ``top``, which is ``/``. Links are not followed. What is held in memory is the names in the folders
    on the way down, and the facts of some hundred files of each.

    :param skip: says of a path whether it, with all below it, is left out
    :raises OSError: of the first file that cannot be read; ESTALE where something is not what it was a moment ago
    """
    reader = _Reader(top, str(top).rstrip("/"), content=content, times=times)
    first, identity = reader.one(top, "/", follow=True)
    yield first
    if first.type != "dir":
        return
    ways = [reader.below(_Folder(str(top.resolve()).rstrip("/"), "", identity), skip)]
    while ways:
        item = next(ways[-1], None)
        if item is None:
            ways.pop()
            continue
        facts, folder = item
        yield facts
        if folder is not None:
            ways.append(reader.below(folder, skip))


class _Reader:
    """Reads files of one image. The names of its users are read once, at the start.

    :param anywhere: a path in the image
    :param top: the folder at which the paths of the facts start; empty for the image's root
    """

    def __init__(self, anywhere: ImagePath, top: str, *, content: bool, times: bool) -> None:
        self._root = anywhere._root
        self._start = self._root.label(top)
        self._content, self._times = content, times
        self._users = owner_names_or_none(anywhere, "passwd")
        self._groups = owner_names_or_none(anywhere, "group")

    def one(self, path: ImagePath, shown: str, *, follow: bool) -> tuple[FileFacts, _Identity]:
        """The facts of one file, and which file that is; ``shown`` is what the facts say as path."""
        text, nofollow = str(path), 0 if follow else os.O_NOFOLLOW
        with self._root.named(text):
            found = self._read(text, False, lambda flags: self._root.open(text, flags | nofollow))
        xattrs = self._root.xattrs([text], follow=follow)[0] if found.xattrs is None else found.xattrs
        return self._facts(found, shown, xattrs), _identity(found.status)

    def below(self, folder: _Folder, skip: Callable[[str], bool]) -> Iterator[tuple[FileFacts, _Folder | None]]:
        """What is in one folder, and for each folder in it what to list next."""
        entries = [entry for entry in self._entries(folder) if not skip(f"{folder.shown}/{entry[0]}")]
        for start in range(0, len(entries), _BATCH):
            batch = entries[start : start + _BATCH]
            found = self._batch(folder, batch)
            if self._root.sees_all_xattrs:
                xattrs = [each.xattrs or {} for each in found]
            else:
                xattrs = self._root.xattrs([each.path for each in found], follow=False)
            for (name, _), each, its in zip(batch, found, xattrs, strict=True):
                shown = f"{folder.shown}/{name}"
                is_folder = stat.S_ISDIR(each.status.st_mode)
                next_folder = _Folder(each.path, shown, _identity(each.status)) if is_folder else None
                yield self._facts(each, shown, its), next_folder

    def _entries(self, folder: _Folder) -> list[_Entry]:
        descriptor = self._open_folder(folder)
        try:
            with self._root.named(folder.path or "/"), os.scandir(descriptor) as entries:
                return sorted((entry.name, _is_file(entry)) for entry in entries)
        finally:
            os.close(descriptor)

    def _batch(self, folder: _Folder, entries: list[_Entry]) -> list[_Found]:
        descriptor = self._open_folder(folder)
        path = folder.path
        try:
            found = []
            for name, is_file in entries:
                path = f"{folder.path}/{name}"
                found.append(self._read(path, is_file, self._opener_below(descriptor, path, name)))
            return found
        except OSError as error:
            with self._root.named(path):
                raise error from None
        finally:
            os.close(descriptor)

    def _open_folder(self, folder: _Folder) -> int:
        path = folder.path or "/"
        descriptor = self._root.open(path, _FOLDER)
        if _identity(os.fstat(descriptor)) != folder.identity:
            os.close(descriptor)
            with self._root.named(path):
                raise _changed()
        return descriptor

    def _opener_below(self, folder: int, path: str, name: str) -> Open:
        """Opens the file ``name`` of an open folder; by the helper where this user may not."""

        def open_(flags: int) -> int:
            try:
                return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
            except PermissionError:
                if self._root.sees_all_xattrs:  # there is no helper
                    raise
                return self._root.open(path, flags | os.O_NOFOLLOW)

        return open_

    def _read(self, path: str, is_file: bool, open_: Open) -> _Found:
        """Everything of one descriptor.

        :param is_file: whether it was a regular file a moment ago: nothing else is opened for reading
        """
        reading = self._content and is_file
        descriptor = open_(_READ if reading else _LOOK)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) != is_file:
                if is_file:
                    raise _changed()
                return self._read(path, True, open_)
            digest = _sha256(descriptor, status.st_size) if reading else None
            target = os.readlink("", dir_fd=descriptor) if stat.S_ISLNK(status.st_mode) else None
            xattrs = None
            if self._root.sees_all_xattrs:
                xattrs = read_xattrs(descriptor if reading else pinned(descriptor))
            return _Found(path, status, digest, target, xattrs)
        finally:
            os.close(descriptor)

    def _facts(self, found: _Found, shown: str, xattrs: dict[str, bytes]) -> FileFacts:
        status = found.status
        kind = _TYPES[stat.S_IFMT(status.st_mode)]
        return FileFacts(
            start=self._start,
            path=shown,
            type=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            owner=self._users.get(status.st_uid),
            group=self._groups.get(status.st_gid),
            size=status.st_size if kind == "file" else None,
            sha256=found.sha256,
            target=found.target,
            device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in ("char", "block") else None,
            xattrs=xattrs,
            mtime_ns=status.st_mtime_ns if self._times else None,
        )


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a regular file; false too where this user may not know, and the helper will be asked."""
    try:
        return entry.is_file(follow_symlinks=False)
    except PermissionError:
        return False


def _sha256(descriptor: int, size: int) -> str:
    # A buffer of a whole chunk for each small file would cost more than the file.
    data = os.read(descriptor, min(size + 1, _CHUNK))
    digest = hashlib.sha256(data)
    if len(data) != size:
        while data := os.read(descriptor, _CHUNK):
            digest.update(data)
    return digest.hexdigest()


def _identity(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino


def _changed() -> OSError:
    return OSError(errno.ESTALE, "It changed while it was read")
