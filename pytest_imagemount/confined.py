"""System calls on paths that are looked up below a root, as after a chroot: opening, and a fixed set of changes.

The kernel confines the walk, by openat2(2) with ``RESOLVE_IN_ROOT``: an absolute link starts at the root, ``..`` stops
there, a magic link (those of procfs) is refused, and a folder that is swapped for a link during the walk cannot lead
out either. A change acts on a name in a folder that was opened so, or on the very file.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .engine import syscalls

IN_ROOT = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_PLAIN = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS
_FOLDER = os.O_PATH | os.O_DIRECTORY
_RACE_SECONDS = 5.0
_PATH_LIMIT = 4095
"""Bytes of a path that one system call takes: PATH_MAX without the NUL."""
_BYTES_A_CHARACTER = 4

Open = Callable[[str, int], int]
"""A descriptor of a path below the root, by the flags of os.open."""


@dataclass(frozen=True, slots=True)
class Change:
    """One change of the tree.

    :param call: a name of :data:`CALLS`
    :param path: what is changed
    :param other: for ``rename`` the new path, for ``symlink`` the text of the link, for ``link`` the existing file
    :param mode: permission bits, for ``mkdir`` and ``chmod``
    """

    call: str
    path: str
    other: str = ""
    mode: int = 0


def open_below(root: int, path: str, flags: int, mode: int = 0, *, resolve: int = IN_ROOT) -> int:
    """openat2(2) of ``path`` below the folder open at ``root``; flags and mode as for os.open.

    A path that is longer than a system call takes is opened in steps. The first is as ever; what follows must be plain
    names, since a link would have to start at the root again: ELOOP.

    :raises OSError: as the kernel says
    """
    if "\0" in path:
        raise ValueError("embedded null byte")
    if len(path) > _PATH_LIMIT // _BYTES_A_CHARACTER and len(encoded := os.fsencode(path)) > _PATH_LIMIT:
        return _open_in_steps(root, encoded, flags, mode, resolve)
    return _open(root, path, flags, mode, resolve)


def _open_in_steps(root: int, path: bytes, flags: int, mode: int, resolve: int) -> int:
    """As :func:`open_below`, each step as long as a system call takes."""
    folder, start = root, 0
    try:
        while len(path) - start > _PATH_LIMIT and (cut := path.rfind(b"/", start + 1, start + _PATH_LIMIT)) > 0:
            below = _open(folder, os.fsdecode(path[start:cut]), _FOLDER, 0, resolve)
            if folder != root:
                os.close(folder)
            folder, start, resolve = below, cut, resolve & ~syscalls.RESOLVE_IN_ROOT | _PLAIN
            while path[start : start + 1] == b"/":
                start += 1
        return _open(folder, os.fsdecode(path[start:]), flags, mode, resolve)
    finally:
        if folder != root:
            os.close(folder)


def _open(root: int, path: str, flags: int, mode: int, resolve: int) -> int:
    if not flags & os.O_PATH:
        # openat2 does not imply it on 32-bit machines, as the C library's open does.
        flags |= os.O_LARGEFILE
    if not flags & os.O_CREAT:
        mode = 0  # os.open ignores it, openat2 says EINVAL
    deadline = time.monotonic() + _RACE_SECONDS
    while True:
        try:
            return syscalls.openat2(root, path, flags, mode=mode, resolve=resolve)
        except InterruptedError:
            continue
        except BlockingIOError:
            # EAGAIN: a mount or a rename anywhere on the machine happened during a ".." step, so that the kernel could
            # not tell whether the step stayed inside. Common where many workers mount.
            if time.monotonic() > deadline:
                raise
        os.sched_yield()


def apply(change: Change, open_: Open) -> None:
    """Make ``change``; ``open_`` opens below the root.

    :raises OSError: as the kernel says; EBUSY and its like for ``/`` and for a last ``..``, which are no names in a
        folder: with them a call would act outside of the root
    """
    CALLS[change.call](change, open_)


def pinned(descriptor: int) -> Path:
    """A name for exactly the file that an O_PATH descriptor holds, for calls that refuse such descriptors.

    The kernel goes from this name to the file itself, with no lookup that could be led astray. Of a symbolic link that
    is the link, never what it points at.
    """
    return Path(f"/proc/self/fd/{descriptor}")


class _Entry:
    """The folder of ``path``, open, and its last name, for calls that take ``dir_fd``.

    :param refused: the errno for what is no name in a folder; None leaves that to the caller
    """

    def __init__(self, path: str, refused: int | None, open_: Open) -> None:
        self._path, self._refused, self._open = PurePosixPath(path), refused, open_

    def __enter__(self) -> tuple[int, str]:
        self._folder = self._open(str(self._path.parent), _FOLDER)
        if self._refused is not None and _is_no_name(self._path.name):
            os.close(self._folder)
            raise OSError(self._refused, os.strerror(self._refused))
        return self._folder, self._path.name

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)


def _is_no_name(name: str) -> bool:
    return name in ("", "..")


def _mkdir(change: Change, open_: Open) -> None:
    with _Entry(change.path, errno.EEXIST, open_) as (folder, name):
        os.mkdir(name, change.mode, dir_fd=folder)


def _rmdir(change: Change, open_: Open) -> None:
    refused = errno.ENOTEMPTY if PurePosixPath(change.path).name else errno.EBUSY
    with _Entry(change.path, refused, open_) as (folder, name):
        os.rmdir(name, dir_fd=folder)


def _unlink(change: Change, open_: Open) -> None:
    with _Entry(change.path, errno.EISDIR, open_) as (folder, name):
        os.unlink(name, dir_fd=folder)


def _symlink(change: Change, open_: Open) -> None:
    with _Entry(change.path, errno.EEXIST, open_) as (folder, name):
        os.symlink(change.other, name, dir_fd=folder)


def _link(change: Change, open_: Open) -> None:
    existing = open_(change.other, os.O_PATH | os.O_NOFOLLOW)
    try:
        with _Entry(change.path, errno.EEXIST, open_) as (folder, name):
            # What is followed is the pinned name: of a link it is the link itself that gets one more name.
            os.link(pinned(existing), name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(existing)


def _rename(change: Change, open_: Open) -> None:
    # The kernel looks up both folders before it minds the names.
    with (
        _Entry(change.path, None, open_) as (folder, name),
        _Entry(change.other, None, open_) as (other_folder, other_name),
    ):
        if _is_no_name(name) or _is_no_name(other_name):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        os.rename(name, other_name, src_dir_fd=folder, dst_dir_fd=other_folder)


def _chmod(change: Change, open_: Open) -> None:
    descriptor = open_(change.path, os.O_PATH)
    try:
        pinned(descriptor).chmod(change.mode)
    finally:
        os.close(descriptor)


def _touch(change: Change, open_: Open) -> None:
    descriptor = open_(change.path, os.O_PATH)
    try:
        os.utime(pinned(descriptor))
    finally:
        os.close(descriptor)


CALLS: dict[str, Callable[[Change, Open], None]] = {
    "mkdir": _mkdir,
    "rmdir": _rmdir,
    "unlink": _unlink,
    "symlink": _symlink,
    "link": _link,
    "rename": _rename,
    "chmod": _chmod,
    "touch": _touch,
}
"""The changes that there are; ``touch`` sets the times of what exists to now."""
