"""ImagePath: a pathlib-like path whose every operation is resolved inside the image."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Literal, overload

from . import image_glob
from .pure_image_path import PureImagePath

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

    from _typeshed import OpenBinaryMode, OpenBinaryModeReading, OpenTextMode

    from .image_root import Entry

_SPECIAL = {
    stat.S_IFIFO: "a FIFO, and opening it would wait for another program",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device node, which is not opened from an image",
    stat.S_IFBLK: "a block device node, which is not opened from an image",
}


class ImagePath(PureImagePath):
    """A path in a mounted image, as ``image / "etc/hostname"`` gives it.

    Reads as :class:`pathlib.Path` does, with the image's own root: what it finds is what a program would find after a
    chroot into the image. Differences from pathlib:

    - Always absolute: ``"etc/hostname"`` and ``"/etc/hostname"`` are the same, and text given as the other end of
      :meth:`rename` or :meth:`samefile` starts at the image's root too.
    - ``str()`` is the path inside the image. :func:`os.fspath` is the one on this machine, see :meth:`__fspath__`.
    - :meth:`readlink` and :meth:`relative_to` give a PurePosixPath, since their text need not be a place in the image.
    - Text is UTF-8 unless said otherwise, whatever the locale of the machine that runs the tests.
    - Listings are sorted. :meth:`iterdir` reads the folder when it is called.
    - :meth:`exists`, :meth:`glob` and :meth:`walk` raise what is not plainly "there is no such file" (a folder without
      read permission, an I/O error), so that a check cannot pass because the image could not be read.
    - Only regular files are opened. A FIFO, a socket or a device node is an OSError ENXIO at once.

    An OSError is the builtin class of its errno, with ``filename`` as in ``disk.qcow2:/etc/hostname``. After the
    unmount every operation that needs the file system raises ImageUnmounted.
    """

    __slots__ = ()

    def __fspath__(self) -> str:
        """The path on this machine, every link and ``..`` already resolved inside the image.

        For programs and libraries that take a file name. No link is left in it, so that a plain open cannot be led to a
        file of this machine; a name that does not exist yet may be created with it. It names what a link points at,
        never the link: to look at, move or remove a link use the methods. It is as good as the tree stays: where
        something swaps folders for links at the same time, use :meth:`open`.
        """
        with self._root.opened(PurePosixPath("/")):
            return str(self._root.mountpoint / str(self._root.resolve(self._path)).lstrip("/"))

    def resolve(self, strict: bool = False) -> ImagePath:
        """The path without links and ``..``, inside the image; if ``strict``, it must exist."""
        if strict:
            self.stat()
        return self._at(self._root.resolve(self._path))

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """As os.stat."""
        return self._root.status(self._path, follow=follow_symlinks)

    def lstat(self) -> os.stat_result:
        """As os.lstat: of a link itself."""
        return self.stat(follow_symlinks=False)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether there is such a file; of a link, whether there is what it points at."""
        return self._mode(follow_symlinks) != 0

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a regular file, or a link to one."""
        return stat.S_ISREG(self._mode(follow_symlinks))

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder, or a link to one."""
        return stat.S_ISDIR(self._mode(follow_symlinks))

    def is_symlink(self) -> bool:
        """Whether it is a symbolic link, dangling or not."""
        return stat.S_ISLNK(self._mode(follow=False))

    def is_fifo(self) -> bool:
        """Whether it is a FIFO, or a link to one."""
        return stat.S_ISFIFO(self._mode())

    def is_socket(self) -> bool:
        """Whether it is a socket, or a link to one."""
        return stat.S_ISSOCK(self._mode())

    def is_block_device(self) -> bool:
        """Whether it is a block device node, or a link to one."""
        return stat.S_ISBLK(self._mode())

    def is_char_device(self) -> bool:
        """Whether it is a character device node, or a link to one."""
        return stat.S_ISCHR(self._mode())

    def is_mount(self) -> bool:
        """Whether another file system (or btrfs subvolume) starts here; true for the image's root."""
        if not self.is_dir(follow_symlinks=False):
            return False
        here, above = self.stat(), (self / "..").stat()
        return here.st_dev != above.st_dev or here.st_ino == above.st_ino

    def readlink(self) -> PurePosixPath:
        """What the link says, as it stands, relative or absolute. OSError EINVAL where this is no link."""
        return PurePosixPath(self._root.link_text(self._path))

    def samefile(self, other: str | os.PathLike[str]) -> bool:
        """Whether both are one file, by device and inode."""
        return os.path.samestat(self.stat(), self._inside(other).stat())

    def owner(self, *, follow_symlinks: bool = True) -> str:
        """Name of the user, by the image's own ``/etc/passwd``; KeyError where that does not have it."""
        return self._account("passwd", self.stat(follow_symlinks=follow_symlinks).st_uid)

    def group(self, *, follow_symlinks: bool = True) -> str:
        """Name of the group, by the image's own ``/etc/group``; KeyError where that does not have it."""
        return self._account("group", self.stat(follow_symlinks=follow_symlinks).st_gid)

    @overload
    def open(
        self,
        mode: OpenTextMode = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.TextIOWrapper: ...

    @overload
    def open(self, mode: OpenBinaryModeReading, buffering: Literal[-1, 1] = -1) -> io.BufferedReader: ...

    @overload
    def open(self, mode: OpenBinaryMode, buffering: int = -1) -> BinaryIO: ...

    @overload
    def open(
        self,
        mode: str,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]: ...

    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """As the builtin open; text is UTF-8 by default. An open file keeps the image from being unmounted."""
        if encoding is None and "b" not in mode:
            encoding = "utf-8"
        name = self._root.label(self._path)
        return open(name, mode, buffering, encoding, errors, newline, opener=self._open_regular)

    def read_bytes(self) -> bytes:
        """The content."""
        with self._root.named(self._path), self.open("rb") as file:
            return file.read()

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """The content as text, UTF-8 by default."""
        with self._root.named(self._path), self.open("r", -1, encoding, errors, newline) as file:
            try:
                return file.read()
            except UnicodeDecodeError as error:
                error.add_note(f"in {self._root.label(self._path)}")
                raise

    def sha256(self) -> str:
        """SHA-256 of the content, as 64 hexadecimal digits."""
        with self._root.named(self._path), self.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def iterdir(self) -> Iterator[ImagePath]:
        """What is in the folder, sorted by name."""
        return iter([self / entry.name for entry in self.listing()])

    def listing(self, *, follow_symlinks: bool = True) -> list[Entry]:
        """The names in the folder with their types, sorted; a link is NotADirectoryError if not ``follow_symlinks``."""
        return self._root.listing(self._path, follow=follow_symlinks)

    def glob(self, pattern: str, *, case_sensitive: bool = True) -> Iterator[ImagePath]:
        """What matches the relative ``pattern``, as pathlib of Python 3.13 does: ``**`` is any number of folders.

        Links to folders are followed where the pattern names them, and not by ``**``. ``*`` matches hidden files.
        """
        return image_glob.glob(self, pattern, case_sensitive=case_sensitive)

    def rglob(self, pattern: str, *, case_sensitive: bool = True) -> Iterator[ImagePath]:
        """As glob with ``**/`` in front."""
        return image_glob.glob(self, f"**/{pattern}", case_sensitive=case_sensitive)

    def walk(
        self,
        top_down: bool = True,
        on_error: Callable[[OSError], object] | None = None,
        follow_symlinks: bool = False,
    ) -> Iterator[tuple[ImagePath, list[str], list[str]]]:
        """As pathlib's walk: each folder with the names of its folders and of its other files.

        Top down, names may be removed from the list of folders to skip them. Errors are raised unless ``on_error``
        takes them (pathlib drops them).
        """
        return image_glob.walk(self, top_down=top_down, on_error=on_error, follow_symlinks=follow_symlinks)

    # Writing, where the mode allows it; else OSError EROFS from the kernel.

    def write_bytes(self, data: bytes) -> int:
        """Make ``data`` the content; the number of bytes."""
        with self._root.named(self._path), self.open("wb") as file:
            return file.write(data)

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> int:
        """Make ``data`` the content, UTF-8 by default; the number of characters."""
        with self._root.named(self._path), self.open("w", -1, encoding, errors, newline) as file:
            return file.write(data)

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Make an empty file, or set the times of what is there to now."""
        if exist_ok and self.exists():
            self._root.change("touch", self._path)
            return
        flags = os.O_CREAT | os.O_WRONLY | os.O_NONBLOCK | (0 if exist_ok else os.O_EXCL)
        os.close(self._root.open(self._path, flags, mode))

    def chmod(self, mode: int) -> None:
        """Set the permission bits, of what a link points at."""
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

    def rename(self, target: str | os.PathLike[str]) -> ImagePath:
        """Move to ``target`` in the same image, in place of what is there; the new path."""
        new = self._inside(target)
        self._root.rename(self._path, new._path)
        return new

    replace = rename

    def _mode(self, follow: bool = True) -> int:
        """st_mode, which is never 0 for a file; 0 where there is none."""
        try:
            return self.stat(follow_symlinks=follow).st_mode
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return 0
            raise

    def _account(self, database: str, number: int) -> str:
        """Name of ``number`` in the image's passwd or group: lines of ``name:password:number:…``."""
        file = self._inside(f"/etc/{database}")
        for line in file.read_text(errors="surrogateescape").splitlines():
            name, _, rest = line.partition(":")
            if rest.split(":")[1:2] == [str(number)]:
                return name
        raise KeyError(f"{self._root.label(self._path)} belongs to {number}, which {file} of the image does not name")

    def _open_regular(self, _name: str, flags: int) -> int:
        """An opener for io.open. Opened without waiting, so that a FIFO cannot stop the test; then made to wait."""
        try:
            descriptor = self._root.open(self._path, flags | os.O_NONBLOCK | os.O_NOCTTY, 0o666)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.EACCES):  # a socket, a FIFO without a reader; a device, by nodev
                self._refuse_special(self._mode())
            raise
        try:
            with self._root.named(self._path):
                mode = os.fstat(descriptor).st_mode
                if stat.S_ISDIR(mode):
                    raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
            self._refuse_special(mode)
            os.set_blocking(descriptor, True)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _refuse_special(self, mode: int) -> None:
        kind = _SPECIAL.get(stat.S_IFMT(mode))
        if kind:
            raise OSError(errno.ENXIO, f"This is {kind}", self._root.label(self._path))
