"""The files that an image refers to: found in the folders that the caller lists, and opened as the caller.

An image may name any file, and who made it may not be trusted: so nothing outside those folders is opened, whatever
the way to it, links and ``..`` included.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .engine import syscalls
from .engine.formats.references import DATA
from .engine.image import format_of, identify_one
from .engine.text import printable
from .errors import ImageInvalid, ImageUnreadable, ImageUnsafe, RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import ExitStack

    from .engine.formats.references import Reference
    from .engine.image import Image

MAX_DEPTH = 16
"""How long a chain of images may be, each a difference to the next."""
MAX_FILES = 240
"""How many files an image may refer to, those that they refer to included: what one request to the helper carries."""


@dataclass(frozen=True, slots=True)
class Backing:
    """Whether an image may refer to other files: those in ``folders``, and none where there is no folder."""

    folders: tuple[Path, ...] = ()

    @classmethod
    def of(cls, wanted: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], listed: Sequence[Path]) -> Backing:
        """What the caller says: ``"refuse"``, ``"allow"`` (the folders of the setting, ``listed``), or folders.

        :raises RequestInvalid: another word, or ``"allow"`` where the setting lists no folder
        """
        if isinstance(wanted, str):
            if wanted == "refuse":
                return cls()
            if wanted == "allow" and listed:
                return cls(tuple(listed))
            reason = "must be 'refuse', 'allow', or a list of folders that files may be in"
            if wanted == "allow":
                reason = "no folder is listed; set imagemount_backing_folders, or give them here: backing=[FOLDER]"
            raise RequestInvalid(argument="backing", value=repr(wanted), reason=reason)
        folders = [wanted] if isinstance(wanted, os.PathLike) else list(wanted)
        return cls(tuple(Path.cwd() / Path(folder).expanduser() for folder in folders))


def referred_files(
    fd: int, path: Path, name: str, format: str | None, mode: str, backing: Backing, closing: ExitStack
) -> list[tuple[str, int]]:
    """Path and descriptor of each file that the image open at ``fd`` refers to; ``closing`` closes them.

    In the order in which they are named: first a file, then those that this file names in its turn.

    :param path: where the image is, which relative names start from
    :param name: what errors call it
    :raises ImageUnsafe: a file is outside the folders, or the chain is a loop or too long
    :raises ImageInvalid: a file does not exist, or its format is not said
    :raises ImageUnreadable: the caller may not open a file
    """
    if not backing.folders:
        return []
    return list(_Walk(backing, mode, closing).files(fd, path, name, format, ()))


@dataclass(slots=True)
class _Walk:
    backing: Backing
    mode: str
    closing: ExitStack
    count: int = 0

    def files(
        self, fd: int, path: Path, name: str, format: str | None, above: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[str, int]]:
        image, references = identify_one(fd, name, format)
        here = (*above, image.identity[:2])
        if len(here) > MAX_DEPTH:
            raise _refused(name, f"the chain of its files is longer than {MAX_DEPTH}")
        for reference in references:
            format = format_of(reference, name)
            self.count += 1
            if self.count > MAX_FILES:
                raise _refused(name, f"it refers to more than {MAX_FILES} files")
            found = path.parent / reference.name
            descriptor = self._open(image, reference, found)
            self.closing.callback(os.close, descriptor)
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) in here:
                raise _refused(name, f"its {reference.role} {_shown(reference)} leads back to an image of the chain")
            yield str(found), descriptor
            yield from self.files(descriptor, found, str(found), format, here)

    def _open(self, image: Image, reference: Reference, found: Path) -> int:
        what = f"its {reference.role} {_shown(reference)}"
        if _has_protocol(reference.name):
            raise _refused(image.name, f"{what} is no path of a file")
        flags = os.O_RDWR if self.mode == "rw" and reference.role == DATA else os.O_RDONLY
        try:
            place = os.open(found, os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            reason = f"{what} cannot be reached: {error.strerror}"
            hint = f"see whether {printable(str(found))} exists; names in an image start from the folder that it is in"
            raise ImageInvalid(image=image.name, reason=reason, hint=hint) from None
        try:
            for folder in self.backing.folders:
                with suppress(_Outside):
                    return _open_inside(folder, place, flags)
            real = _real(place)
        except OSError as error:
            hint = "allow it with chmod, or run as a user who may"
            reason = f"{what}: {error.strerror}"
            raise ImageUnreadable(image=image.name, mode=self.mode, reason=reason, hint=hint) from None
        finally:
            os.close(place)
        listed = ", ".join(str(folder) for folder in self.backing.folders)
        raise _refused(image.name, f"{what} is at {printable(real)}, outside the folders listed: {listed}")


class _Outside(Exception):
    """A file is not in a folder."""


def _open_inside(folder: Path, place: int, flags: int) -> int:
    """A descriptor of the file that ``place`` (O_PATH) is of, by a way that starts at ``folder`` and has no links.

    :raises _Outside: it is not in there
    :raises OSError: the caller may not open it so
    """
    try:
        root = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise _Outside from None
    try:
        way = os.path.relpath(_real(place), _real(root))
        if way == ".." or way.startswith("../"):
            raise _Outside
        # O_NONBLOCK: a FIFO would wait for a writer. It is none where it was none, but a name can be changed.
        resolve = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS | syscalls.RESOLVE_NO_MAGICLINKS
        fd = syscalls.openat2(root, way, flags | os.O_NONBLOCK, resolve=resolve)
        if not os.path.samestat(os.fstat(fd), os.fstat(place)):
            os.close(fd)
            raise _Outside
        os.set_blocking(fd, True)
        return fd
    finally:
        os.close(root)


def _real(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115  (of a descriptor)


def _has_protocol(name: str) -> bool:
    """qemu's rule: a colon before any slash, as in ``nbd://host`` and ``json:{}``."""
    return ":" in name.partition("/")[0] or not name


def _shown(reference: Reference) -> str:
    return repr(printable(reference.name))


def _refused(image: str, reason: str) -> ImageUnsafe:
    hint = "make a self-contained copy of it with `qemu-img convert`, if you trust the image"
    return ImageUnsafe(image=image, reason=reason, hint=hint)
