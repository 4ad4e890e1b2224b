"""Images and mount points as the calling user finds and opens them, with that user's own rights."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ImageInvalid, ImageNotFound, ImageUnreadable, RequestInvalid
from .keys import Key

if TYPE_CHECKING:
    from collections.abc import Iterator


Images = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""The path of an image, or those of several that belong together."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Open files of one request: ``roles`` has a word for each of ``descriptors``, see ``Open`` of the protocol."""

    source: Path
    roles: tuple[str, ...]
    descriptors: tuple[int, ...]


class Files:
    """The files of one mount, as the caller names them.

    ``name`` is the image's, for messages. A secret is kept in memory until the files are opened.
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
    ) -> None:
        first, *self._members = [image] if isinstance(image, str | os.PathLike) else list(image)
        self.name = os.fspath(first)
        self._folders = folders
        self._mode = mode
        self._mountpoint = mountpoint
        self._key = Key.of(passphrase, key_file)

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        """Find and open them with the caller's own privilege; they are closed at the end.

        :raises ImageNotFound: listing where it looked
        :raises ImageUnreadable: the caller may not read one, or for mode ``rw`` not write it
        :raises RequestInvalid: the mount point or the key file is none
        """
        with ExitStack() as closing:
            opened: list[tuple[str, int]] = []

            def take(role: str, descriptor: int) -> None:
                opened.append((role, descriptor))
                closing.callback(os.close, descriptor)

            source = find_image(self.name, self._folders)
            take("image", open_image(source, self.name, self._mode))
            for member in self._members:
                path = find_image(os.fspath(member), self._folders)
                take(f"member:{path}", open_image(path, os.fspath(member), self._mode))
            if self._mountpoint is not None:
                take("mountpoint", open_mountpoint(self._mountpoint))
            if self._key is not None:
                take("key", self._key.open())
            yield Opened(source, *zip(*opened, strict=True))


def find_image(image: str, folders: Sequence[Path]) -> Path:
    """The absolute path of ``image``, looked for in ``folders`` in order when it is relative.

    :raises ImageNotFound: listing where it looked
    """
    given = Path(image).expanduser()
    looked: list[str] = []
    for folder in folders or (Path.cwd(),):
        path = Path(os.path.abspath(folder / given))  # noqa: PTH100  (resolve() would follow links)
        if os.path.lexists(path):
            return path
        if str(path) not in looked:
            looked.append(str(path))
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
