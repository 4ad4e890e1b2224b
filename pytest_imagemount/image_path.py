"""ImagePath: a pathlib-like path whose every operation is resolved inside the image."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Literal, overload

from . import image_glob
from .image_path_changes import ImagePathChanges
from .owner_names import owner_names

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterator

    from _typeshed import OpenBinaryMode, OpenBinaryModeReading, OpenTextMode

    from .file_facts import FileFacts
    from .image_root import Entry

_SPECIAL = {
    stat.S_IFIFO: "a FIFO, and opening it would wait for another program",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device node, which is not opened from an image",
    stat.S_IFBLK: "a block device node, which is not opened from an image",
}


class ImagePath(ImagePathChanges):
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
    - There is no ``cwd``, ``home``, ``expanduser``, ``as_uri``, ``copy`` or ``move``: they mean this machine's files.
    - Beyond pathlib: :meth:`facts`, :meth:`sha256`, :meth:`xattrs`, :meth:`capabilities`, :meth:`selinux_context`.

    An OSError is the builtin class of its errno, with ``filename`` as in
    ``disk.qcow2 partition 2:/etc/hostname``. After the unmount every operation that needs the file system raises
    ImageUnmounted.
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

    def readlink(self) -> PurePosixPath:
        """What the link says, as it stands, relative or absolute. OSError EINVAL where this is no link."""
        return PurePosixPath(self._root.link_text(self._path))

    def owner(self, *, follow_symlinks: bool = True) -> str:
        """Name of the user, by the image's own ``/etc/passwd``; KeyError where that does not have it."""
        return self._account("passwd", self.stat(follow_symlinks=follow_symlinks).st_uid)

    def group(self, *, follow_symlinks: bool = True) -> str:
        """Name of the group, by the image's own ``/etc/group``; KeyError where that does not have it."""
        return self._account("group", self.stat(follow_symlinks=follow_symlinks).st_gid)

    def facts(self, *, follow_symlinks: bool = True, content: bool = True, times: bool = False) -> FileFacts:
        """What the image says of the file, as one value: ``assert a.facts() == b.facts()`` shows what differs.

        :param content: read a regular file for its SHA-256; without it files are told apart by their size alone
        :param times: the time of the last change is a fact too
        """
        from .facts_reader import facts_of

        return facts_of(self, follow=follow_symlinks, content=content, times=times)

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

    def glob(
        self, pattern: str, *, case_sensitive: bool | None = None, recurse_symlinks: bool = False
    ) -> Iterator[ImagePath]:
        """What matches the relative ``pattern``, as pathlib of Python 3.13 does: ``**`` is any number of folders.

        Links to folders are followed where the pattern names them, and by ``**`` only if ``recurse_symlinks``. ``*``
        matches hidden files. Case matters unless ``case_sensitive`` is false.
        """
        return image_glob.glob(
            self, pattern, case_sensitive=case_sensitive is not False, recurse_symlinks=recurse_symlinks
        )

    def rglob(
        self, pattern: str, *, case_sensitive: bool | None = None, recurse_symlinks: bool = False
    ) -> Iterator[ImagePath]:
        """As glob with ``**/`` in front."""
        return self.glob(f"**/{pattern}", case_sensitive=case_sensitive, recurse_symlinks=recurse_symlinks)

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

    def _account(self, database: Literal["passwd", "group"], number: int) -> str:
        names = owner_names(self, database)
        if number not in names:
            label = self._root.label(self._path)
            raise KeyError(f"{label} belongs to {number}, which /etc/{database} of the image does not name")
        return names[number]

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
