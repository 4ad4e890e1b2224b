"""Images and mount points as the calling user finds and opens them, with that user's own rights."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ImageInvalid, ImageNotFound, ImageUnreadable, RequestInvalid, is_ours
from .keys import Key

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from .backing_files import Backing
    from .unpacking import Unpacker

__tracebackhide__ = is_ours
Images = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""The path of an image, or those of several that belong together."""
BackingChoice = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""``"refuse"``, ``"allow"``, or the folders that files may be in which an image refers to."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Open files of one request, closed at the end of a ``with``.

    ``roles`` has a word for each of ``descriptors``, see ``Open`` of the protocol.
    """

    source: Path
    roles: tuple[str, ...]
    descriptors: tuple[int, ...]
    closing: ExitStack

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.close()


class Files:
    """The files of one mount, as the caller names them.

    ``name`` is the image's, for messages. A secret is kept in memory until the files are opened.

    :param format: what the image's is to be; of one that is compressed, what it is when it is unpacked
    :param backing: whether it may refer to other files
    :param listed: the folders that ``backing="allow"`` means
    :param unpacker: makes compressed and split images whole; None takes every file as it is
    """

    def __init__(
        self,
        image: Images,
        folders: Sequence[Path],
        mode: str,
        *,
        mountpoint: str | os.PathLike[str] | None = None,
        passphrase: str | bytes | None = None,
        key_file: str | os.PathLike[str] | None = None,
        format: str | None = None,
        backing: BackingChoice = "refuse",
        listed: Sequence[Path] = (),
        unpacker: Unpacker | None = None,
    ) -> None:
        if not image:
            raise RequestInvalid(argument="image", value=repr(image), reason="give the path of an image file")
        first, *self._members = [image] if isinstance(image, str | os.PathLike) else image
        self.name = os.fspath(first)
        self._folders = folders
        self._mode = mode
        self._mountpoint = mountpoint
        self._key = Key.of(passphrase, key_file)
        self._format = format
        self._unpacker = unpacker
        self._backing: Backing | None = None
        if backing != "refuse":
            from .backing_files import Backing

            self._backing = Backing.of(backing, listed)

    @property
    def has_key(self) -> bool:
        """Whether a passphrase or a key file was given."""
        return self._key is not None

    def opened(self, *, key_only: bool = False) -> Opened:
        """Find and open them with the caller's own privilege.

        :param key_only: only the key: the helper has the image open already
        :raises ImageNotFound: listing where it looked
        :raises ImageUnreadable: the caller may not read one, or for mode ``rw`` not write it
        :raises RequestInvalid: the mount point or the key file is none
        :raises ImageInvalid: what is compressed is corrupt, a part of it is missing, or a file that it refers to
        :raises ImageUnsafe: it refers to a file outside the folders that are listed
        :raises UnpackFailed: there is no room for what it unpacks to
        """
        with ExitStack() as closing:
            opened: list[tuple[str, int]] = []

            def take(role: str, descriptor: int) -> None:
                opened.append((role, descriptor))
                closing.callback(os.close, descriptor)

            source = find_image(self.name, self._folders)
            if not key_only:
                self._open_images(source, take, opened, closing)
            if self._mountpoint is not None:
                take("mountpoint", open_mountpoint(self._mountpoint))
            if self._key is not None:
                take("key", self._key.open())
            roles, descriptors = zip(*opened, strict=True) if opened else ((), ())
            return Opened(source, roles, descriptors, closing.pop_all())

    def _open_images(
        self, source: Path, take: Callable[[str, int], None], opened: list[tuple[str, int]], closing: ExitStack
    ) -> None:
        take("image", self._open_whole(source, self.name))
        if self._backing is not None:
            from .backing_files import referred_files

            image = opened[0][1]
            found = referred_files(image, source, self.name, self._format, self._mode, self._backing, closing)
            opened += [(f"file:{path}", descriptor) for path, descriptor in found]
        for member in self._members:
            path = find_image(os.fspath(member), self._folders)
            take(f"member:{path}", self._open_whole(path, os.fspath(member)))

    def _open_whole(self, path: Path, name: str) -> int:
        fd = open_image(path, name, self._mode)
        if self._unpacker is None:
            return fd
        try:
            whole = self._unpacker.whole(fd, path, name, self._mode)
        except BaseException:
            os.close(fd)
            raise
        if whole is None:
            return fd
        os.close(fd)
        return whole


def find_image(image: str, folders: Sequence[Path]) -> Path:
    """The absolute path of ``image``, looked for in ``folders`` in order when it is relative.

    :raises ImageNotFound: listing where it looked
    """
    given = os.path.expanduser(image)  # noqa: PTH111  (text: pathlib takes 60 µs for what this takes 5)
    looked: list[str] = []
    for folder in folders or (Path.cwd(),):
        path = os.path.abspath(os.path.join(folder, given))  # noqa: PTH100, PTH118  (resolve() would follow links)
        if os.path.lexists(path):
            return Path(path)
        if path not in looked:
            looked.append(path)
    raise ImageNotFound(image=image, looked=looked)


def open_image(path: Path, name: str, mode: str) -> int:
    """A descriptor of the image, opened with the caller's own privilege.

    :raises ImageUnreadable: the caller may not read it, or for mode ``rw`` not write it
    :raises ImageNotFound: a link that leads nowhere
    """
    # O_NONBLOCK: a FIFO would wait for a writer.
    flags = (os.O_RDWR if mode == "rw" else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except FileNotFoundError:
        raise ImageNotFound(image=name, looked=[f"{path} (a link to what does not exist)"]) from None
    except IsADirectoryError:
        raise ImageInvalid(image=name, reason="it is a directory", hint="give the path of an image file") from None
    except OSError as error:
        hint = "allow it with chmod, or run as a user who may"
        if error.errno in (errno.EROFS, errno.EACCES, errno.ETXTBSY) and mode == "rw":
            hint = "use mode='overlay' to write without changing the image, or copy it to where it can be written"
        reason = error.strerror or str(error)
        raise ImageUnreadable(image=name, mode=mode, reason=reason, hint=hint) from None
    os.set_blocking(fd, True)
    return fd


def open_mountpoint(path: str | os.PathLike[str]) -> int:
    """A descriptor of an existing empty folder that the caller owns.

    :raises RequestInvalid: it is not one
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        reason = f"{error.strerror}; give an existing empty folder"
        raise RequestInvalid(argument="mountpoint", value=repr(os.fspath(path)), reason=reason) from None
    status = os.fstat(fd)
    reason = ""
    if os.listdir(fd):  # noqa: PTH208  (of a descriptor)
        reason = "the folder is not empty"
    elif os.geteuid() not in (0, status.st_uid) or not stat.S_ISDIR(status.st_mode):
        reason = "the folder belongs to another user"
    if reason:
        os.close(fd)
        raise RequestInvalid(argument="mountpoint", value=repr(os.fspath(path)), reason=reason)
    return fd
