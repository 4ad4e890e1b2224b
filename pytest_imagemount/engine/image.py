"""What an image file is, from its content alone, and the files that belong to it."""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import ImageInvalid, ImageMountError, RequestInvalid
from .formats.content import Content
from .formats.known import detect, normalise
from .text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .formats.references import Reference

_NOT_A_FILE = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFLNK: "a symbolic link",
}


@dataclass(frozen=True, slots=True)
class Layer:
    """A file that an image names by ``reference``, itself an image."""

    reference: Reference
    image: Image


@dataclass(frozen=True, slots=True)
class Image:
    """An image, open at ``fd`` (not owned).

    ``format`` is a qemu driver name. ``virtual_size`` and ``file_size`` are in bytes; a ``virtual_size`` of 0 means
    that only qemu can tell. ``writable``: ``fd`` was opened for reading and writing. ``identity`` is device, inode,
    size and mtime in ns of the file; of a block device it is its number, 0, size and 0, the same for all its nodes.
    ``why_not_written`` says why qemu does not write to this format, and is empty where it does. ``layers`` are the
    files that it names, in the order in which it does.
    """

    fd: int
    name: str
    format: str
    virtual_size: int
    file_size: int
    writable: bool
    is_block_device: bool
    identity: tuple[int, int, int, int]
    why_not_written: str = ""
    layers: tuple[Layer, ...] = ()


def identify(fd: int, name: str, format: str | None = None, *, files: Sequence[tuple[str, int]] = ()) -> Image:
    """The image open at ``fd``; ``name`` is what errors call it.

    ``format=None`` takes the format from the content. A given one must fit the content, and ``"raw"`` fits any.
    The offset of ``fd`` may change.

    :param files: name and descriptor of each file that the image may refer to, in the order in which they are named:
        first a file, then those that this file names in its turn. None refuses an image that refers to another file
    :raises RequestInvalid: there is no format of that name, or there are more or fewer files than are named
    :raises FormatMismatch: the content is of another format
    :raises ImageInvalid: a folder, a pipe, empty, truncated, corrupt, encrypted, or of features that are not known
    :raises ImageUnsafe: the image names another file: backing file, data file, extent or parent
    """
    if not files:
        return _look_at(fd, name, format, None)
    remaining = iter(files)
    image = _with_layers(fd, name, format, remaining)
    if next(remaining, None) is not None:
        raise RequestInvalid(argument="files", value=str(len(files)), reason="more than the image refers to")
    return image


def identify_one(fd: int, name: str, format: str | None = None) -> tuple[Image, tuple[Reference, ...]]:
    """As :func:`identify`, for this file alone, and what it says of other files that it needs."""
    references: list[Reference] = []
    return _look_at(fd, name, format, references), tuple(references)


def format_of(reference: Reference, image: str) -> str:
    """The format of the file that ``reference`` names, as ``image`` says. It is never told from that file's content.

    :raises ImageInvalid: it says none, or one that is not known
    """
    named = printable(reference.name)
    if reference.format is None:
        reason = f"it does not say of which format its {reference.role} {named!r} is, and that is not guessed"
        hint = f"write it in by `qemu-img rebase -u -F FORMAT -b '{named}' IMAGE`; a qcow cannot say it: convert it"
        raise ImageInvalid(image=image, reason=reason, hint=hint)
    try:
        return normalise(reference.format)
    except RequestInvalid as error:
        reason = f"the format of its {reference.role} {named!r} is {printable(reference.format)!r}, {error.reason}"
        raise ImageInvalid(image=image, reason=reason, hint="see what `qemu-img info` says of it") from None


def _with_layers(fd: int, name: str, format: str | None, remaining: Iterator[tuple[str, int]]) -> Image:
    image, references = identify_one(fd, name, format)
    layers = []
    for reference in references:
        found = next(remaining, None)
        if found is None:
            reason = f"{name} refers to {printable(reference.name)!r}, which did not come along"
            raise RequestInvalid(argument="files", value="too few", reason=reason)
        path, descriptor = found
        layers.append(Layer(reference, _with_layers(descriptor, path, format_of(reference, name), remaining)))
    return replace(image, layers=tuple(layers))


def _look_at(fd: int, name: str, format: str | None, references: list[Reference] | None) -> Image:
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
        content = Content.open_at(fd, name, size, is_block_device=is_block_device, references=references)
        found = detect(content, wanted)
        writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
    except OSError as error:
        if isinstance(error, ImageMountError):
            raise
        hint = "see whether the medium that it is on is sound, and that it is open for reading"
        raise ImageInvalid(image=name, reason=f"it cannot be read: {error.strerror}", hint=hint) from error
    if is_block_device:
        identity = (status.st_rdev, 0, size, 0)
    else:
        identity = (status.st_dev, status.st_ino, size, status.st_mtime_ns)
    return Image(
        fd, name, found.format, found.virtual_size, size, writable, is_block_device, identity, found.why_not_written
    )
