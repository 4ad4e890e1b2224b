"""Names of users and groups by the files of an image, never by those of this machine."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .image_path import ImagePath

_NO_DATABASE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO)
_LARGEST = 1 << 24  # bytes: a hundred thousand users
_MOST_DIGITS = 10  # of a number with 32 bits


def owner_names(root: ImagePath, database: Literal["passwd", "group"]) -> dict[int, str]:
    """Number to name by the image's ``/etc/passwd`` or ``/etc/group``; of two names the first, as for getpwuid.

    :param root: the image's root, or any path in the image
    :raises OSError: there is no such file, or it cannot be read
    """
    found: dict[int, str] = {}
    with (root / "/etc" / database).open("rb") as file:
        lines = file.read(_LARGEST).decode(errors="surrogateescape").split("\n")
    for line in lines:
        name, *rest = line.split(":", 3)
        number = rest[1] if len(rest) > 1 else ""
        if number.isascii() and number.isdecimal() and len(number) <= _MOST_DIGITS:
            found.setdefault(int(number), name)
    return found


def owner_names_or_none(root: ImagePath, database: Literal["passwd", "group"]) -> dict[int, str]:
    """As :func:`owner_names`, and empty where the image has no such file.

    :raises OSError: it is there and cannot be read
    """
    try:
        return owner_names(root, database)
    except OSError as error:
        if error.errno in _NO_DATABASE:
            return {}
        raise
