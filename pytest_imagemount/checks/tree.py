"""Every file of an image with its status, in one pass."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..image_root import ImageRoot
    from ..mounted_image import MountedImage


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """A name in the image, by lstat. ``size`` is in bytes."""

    path: str
    mode: int
    uid: int
    gid: int
    size: int

    @property
    def is_link(self) -> bool:
        return stat.S_ISLNK(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


def walk_tree(image: MountedImage) -> Iterator[TreeEntry]:
    """Every file below the root of ``image``, a folder before what is in it, by name; links are not followed.

    A folder is opened once, inside the image, and asked about each of its names: opening each file would take a request
    to the helper, where the user is not root.

    :raises OSError: a folder cannot be read, so that nobody could say what is in it
    """
    root = (image / "/")._root
    waiting = ["/"]
    while waiting:
        folder = waiting.pop()
        with root.opened(PurePosixPath(folder), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) as descriptor:
            names = sorted(os.listdir(descriptor))  # noqa: PTH208  (of a descriptor)
            found = [_entry(root, folder, name, descriptor) for name in names]
        yield from found
        waiting += [entry.path for entry in reversed(found) if entry.is_folder]


def _entry(root: ImageRoot, folder: str, name: str, descriptor: int) -> TreeEntry:
    path = f"{folder.rstrip('/')}/{name}"
    try:
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    except PermissionError:  # the helper opened a folder that the user may not search: it looks itself
        status = root.status(PurePosixPath(path), follow=False)
    return TreeEntry(path, status.st_mode, status.st_uid, status.st_gid, status.st_size)
