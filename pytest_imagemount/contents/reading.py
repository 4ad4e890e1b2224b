"""Reading files of an image that may be hostile: bounded, without waiting, and None for what is not there."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from ..errors import FactsInvalid, FactsMissing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..image_path import ImagePath
    from ..image_root import Entry

MOST_BYTES = 64 << 20
"""Of a text file. The largest that was seen in practice, dpkg's status file of a full desktop, has a tenth of it."""

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def image_name(path: ImagePath) -> str:
    """The name of the image, for messages."""
    return path._root.name


def read_bytes(path: ImagePath, most: int = MOST_BYTES) -> bytes | None:
    """The content, or None where there is no such file.

    :param most: bytes
    :raises FactsInvalid: the file is larger than ``most``
    :raises OSError: it is no regular file, or cannot be read
    """
    try:
        with path.open("rb") as file:
            too_large = os.fstat(file.fileno()).st_size > most
            data = b"" if too_large else file.read(most + 1)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise
    if too_large or len(data) > most:
        raise larger(path, most)
    return data


def read_text(path: ImagePath, most: int = MOST_BYTES) -> str | None:
    """As :func:`read_bytes`, decoded; a byte that is not UTF-8 stands as ``\\xNN``."""
    data = read_bytes(path, most)
    return None if data is None else data.decode("utf-8", "backslashreplace")


def read_names(path: ImagePath, most: int = MOST_BYTES) -> str | None:
    """As :func:`read_bytes`, decoded as file names are: what is not UTF-8 becomes what ``os.fsdecode`` makes of it."""
    data = read_bytes(path, most)
    return None if data is None else data.decode("utf-8", "surrogateescape")


def first_text(root: ImagePath, paths: Sequence[str], most: int = MOST_BYTES) -> tuple[ImagePath, str] | None:
    """The first of ``paths`` that is there, with its text."""
    for path in paths:
        text = read_text(root / path, most)
        if text is not None:
            return root / path, text
    return None


def entries(folder: ImagePath) -> list[Entry]:
    """The names in ``folder``, sorted; none where there is no such folder."""
    try:
        return folder.listing()
    except OSError as error:
        if error.errno in _NOT_THERE:
            return []
        raise


def regular_files(folder: ImagePath) -> Iterator[ImagePath]:
    """The regular files of ``folder``, links to such followed, in the order of their names."""
    for entry in entries(folder):
        path = folder / entry.name
        if not entry.is_folder and path.is_file():
            yield path


def link_text(path: ImagePath) -> str | None:
    """What the link says, or None where ``path`` is no link."""
    try:
        return str(path.readlink())
    except OSError as error:
        if error.errno in {errno.EINVAL, *_NOT_THERE}:
            return None
        raise


def is_executable(path: ImagePath) -> bool:
    """Whether some user may execute the file, by its mode."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o111)


def larger(path: ImagePath, most: int) -> FactsInvalid:
    """The error about a file of more than ``most`` bytes."""
    return invalid(path, f"is larger than {most} bytes", "nothing that belongs there is so large; look at the file")


def invalid(path: ImagePath, reason: str, hint: str, line: int | None = None) -> FactsInvalid:
    """The error about the content of ``path``."""
    return FactsInvalid(image=image_name(path), path=str(path), reason=reason, hint=hint, line=line)


def missing(root: ImagePath, fact: str, looked: Sequence[str], hint: str) -> FactsMissing:
    """The error about a fact that is read from none of ``looked``."""
    return FactsMissing(image=image_name(root), fact=fact, looked=list(looked), hint=hint)
