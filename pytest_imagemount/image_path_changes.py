"""Changing the tree of an image by an image path, where the mode of the mount allows it; else the kernel says EROFS."""

from __future__ import annotations

import os
from typing import Self

from .image_path_status import ImagePathStatus


class ImagePathChanges(ImagePathStatus):
    """The part of :class:`.ImagePath` that changes names, modes and times; content is written by that class itself."""

    __slots__ = ()

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Make an empty file, or set the times of what is there to now."""
        if exist_ok and self.exists():
            self._root.change("touch", self._path)
            return
        flags = os.O_CREAT | os.O_WRONLY | os.O_NONBLOCK | (0 if exist_ok else os.O_EXCL)
        os.close(self._root.open(self._path, flags, mode))

    def chmod(self, mode: int, *, follow_symlinks: bool = True) -> None:
        """Set the permission bits, of what a link points at; NotImplementedError for a link itself, which has none."""
        if not follow_symlinks and self.is_symlink():
            raise NotImplementedError(f"{self._root.label(self._path)}: Linux keeps no mode for a symbolic link")
        self._root.change("chmod", self._path, mode=mode)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a folder; ``parents`` makes the ones above it too."""
        try:
            self._root.change("mkdir", self._path, mode=mode)
        except FileNotFoundError:
            if not parents or self.parent == self:
                raise
            self.parent.mkdir(parents=True, exist_ok=True)
            self.mkdir(mode, exist_ok=exist_ok)
        except OSError:
            # Not only FileExistsError: the kernel may say EROFS first.
            if not exist_ok or not self.is_dir():
                raise

    def rmdir(self) -> None:
        """Remove an empty folder."""
        self._root.change("rmdir", self._path)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove a file, or a link itself."""
        try:
            self._root.change("unlink", self._path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def symlink_to(self, target: str | os.PathLike[str], target_is_directory: bool = False) -> None:
        """Make a link here that says ``target``, as it stands; ``target_is_directory`` means nothing on Linux."""
        self._root.link(self._path, self._text(target))

    def hardlink_to(self, target: str | os.PathLike[str]) -> None:
        """Make this one more name of the file ``target`` of the same image."""
        self._root.hard_link(self._path, self._inside(target)._path)

    def rename(self, target: str | os.PathLike[str]) -> Self:
        """Move to ``target`` in the same image, in place of what is there; the new path."""
        new = self._inside(target)
        self._root.rename(self._path, new._path)
        return new

    replace = rename
