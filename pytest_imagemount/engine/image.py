"""What an image file is, from its content alone."""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import dataclass

from ..errors import ImageInvalid
from .formats.content import Content
from .formats.known import detect, normalise

_NOT_A_FILE = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFLNK: "a symbolic link",
}


@dataclass(frozen=True, slots=True)
class Image:
    """An image, open at ``fd`` (not owned).

    ``format`` is a qemu driver name. ``virtual_size`` and ``file_size`` are in bytes; a ``virtual_size`` of 0 means
    that only qemu can tell. ``writable``: ``fd`` was opened for reading and writing. ``identity`` is device, inode,
    size and mtime in ns of the file; of a block device it is its number, 0, size and 0, the same for all its nodes.
    """

    fd: int
    name: str
    format: str
    virtual_size: int
    file_size: int
    writable: bool
    is_block_device: bool
    identity: tuple[int, int, int, int]


def identify(fd: int, name: str, format: str | None = None) -> Image:
    """The image open at ``fd``; ``name`` is what errors call it.

    ``format=None`` takes the format from the content. A given one must fit the content, and ``"raw"`` fits any.
    The offset of ``fd`` may change.

    :raises RequestInvalid: there is no format of that name
    :raises FormatMismatch: the content is of another format
    :raises ImageInvalid: a folder, a pipe, empty, truncated, corrupt, encrypted, or of features that are not known
    :raises ImageUnsafe: the image names another file: backing file, data file, extent or parent
    """
    wanted = None if format is None else normalise(format)
    try:
        status = os.fstat(fd)
        kind = stat.S_IFMT(status.st_mode)
        if kind in _NOT_A_FILE:
            hint = "give the path of an image file or of a block device"
            raise ImageInvalid(image=name, reason=f"this is {_NOT_A_FILE[kind]}, not an image", hint=hint)
        is_block_device = kind == stat.S_IFBLK
        size = os.lseek(fd, 0, os.SEEK_END) if is_block_device else status.st_size
        if not size:
            raise ImageInvalid(image=name, reason="it is empty (0 bytes)", hint="see whether its build succeeded")
        found, virtual_size = detect(Content.open_at(fd, name, size, is_block_device=is_block_device), wanted)
        writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
    except OSError as error:
        hint = "see whether the medium that it is on is sound, and that it is open for reading"
        raise ImageInvalid(image=name, reason=f"it cannot be read: {error.strerror}", hint=hint) from error
    if is_block_device:
        identity = (status.st_rdev, 0, size, 0)
    else:
        identity = (status.st_dev, status.st_ino, size, status.st_mtime_ns)
    return Image(fd, name, found, virtual_size, size, writable, is_block_device, identity)
