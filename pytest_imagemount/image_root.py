"""The resolver: every path of an image is looked up below the image's root, as after a chroot.

The kernel does the work (:mod:`.confined`). All that follows works on the descriptor that openat2 gave.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NoReturn, Protocol

from .confined import Change, apply, open_below, pinned
from .errors import CapabilityMissing, ImageMountError, ImageUnmounted, describe_part
from .xattrs import read_xattrs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_MOST_LINKS = 40  # MAXSYMLINKS of the kernel: with one more it answers ELOOP.


class Opener(Protocol):
    """The one place where a path of the image becomes a descriptor, or is changed."""

    sees_all_xattrs: bool
    """Whether this process gets every extended attribute from a descriptor, with no need for :meth:`xattrs`."""

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """A descriptor, close-on-exec, of ``path`` resolved inside the image; OSError as the kernel says.

        :param flags: as for os.open
        :param mode: permission bits of a file that ``O_CREAT`` makes
        """
        ...

    def change(self, change: Change) -> None:
        """Change the tree, every path resolved inside the image; OSError as the kernel says."""
        ...

    def xattrs(self, paths: Sequence[str], *, follow: bool) -> Iterator[dict[str, bytes]]:
        """The extended attributes of each path in turn, resolved inside the image; OSError as the kernel says.

        :param follow: of what a link points at, not of the link itself
        """
        ...

    def close(self) -> None:
        """Give up the image's root; all else is an OSError from then on. A second call does nothing."""
        ...


class LocalOpener:
    """Opens with the rights of this process.

    The root is opened anew each time: a descriptor that stayed open would keep the mount busy for the helper, and for
    as long as any child lives that was forked meanwhile.

    :raises CapabilityMissing: the kernel or the container has no openat2
    """

    sees_all_xattrs = True

    def __init__(self, root: Path) -> None:
        self._root: Path | None = root
        self._identity = _identity(root.lstat())
        try:
            os.close(self.open(".", os.O_PATH))
        except OSError as error:
            # O_PATH on the root itself needs no right at all, so that EPERM comes from a seccomp filter.
            if error.errno in (errno.ENOSYS, errno.EPERM, None):
                raise _no_openat2(error) from None
            raise

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """See :meth:`Opener.open`."""
        root = self._open_root()
        try:
            return open_below(root, path, flags, mode)
        finally:
            os.close(root)

    def change(self, change: Change) -> None:
        """See :meth:`Opener.change`."""
        apply(change, self.open)

    def xattrs(self, paths: Sequence[str], *, follow: bool) -> Iterator[dict[str, bytes]]:
        """See :meth:`Opener.xattrs`."""
        return (self._xattrs(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW)) for path in paths)

    def close(self) -> None:
        """See :meth:`Opener.close`."""
        self._root = None

    def _xattrs(self, path: str, flags: int) -> dict[str, bytes]:
        descriptor = self.open(path, flags)
        try:
            return read_xattrs(pinned(descriptor))
        finally:
            os.close(descriptor)

    def _open_root(self) -> int:
        if self._root is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        root = os.open(self._root, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        # Where the mount was taken away behind our back, the folder below it is not the image.
        if _identity(os.fstat(root)) != self._identity:
            os.close(root)
            raise OSError(errno.ENOTCONN, "the image is not mounted there any more")
        return root


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a folder, and what it is; a link is not a folder, whatever it points at."""

    name: str
    is_folder: bool
    is_link: bool


class ImageRoot:
    """The tree of one mounted image. Paths are absolute inside it.

    An OSError of any method is the builtin class of its errno, with ``filename`` as in
    ``disk.qcow2 partition 2:/etc/hostname``. After :meth:`close` they raise ImageUnmounted.

    :param name: of the image, for messages
    :param mountpoint: the folder on this machine
    :param mode: ``ro``, ``overlay`` or ``rw``, for messages
    :param part: of the image, as ``partition=`` takes it, for messages; None where it is the image itself
    """

    def __init__(
        self, name: str, mountpoint: Path, mode: str, opener: Opener, *, part: int | str | None = None
    ) -> None:
        self.name, self.mountpoint, self.mode = name, mountpoint, mode
        self.title = name if part is None else f"{name} {describe_part(part)}"
        self._opener = opener
        self._closed = False

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"a path of image {self.name!r} is of use only in the process that mounted it")

    def close(self) -> None:
        """Let go of the mount; before this, an unmount finds it busy."""
        self._closed = True
        self._opener.close()

    def label(self, path: PurePosixPath | str) -> str:
        """``disk.qcow2 partition 2:/etc/hostname``; without a partition ``disk.raw:/etc/hostname``."""
        return f"{self.title}:{path}"

    @contextmanager
    def named(self, path: PurePosixPath | str, other: PurePosixPath | None = None) -> Iterator[None]:
        """Give an OSError of the block the names of ``path`` and ``other`` inside the image."""
        try:
            yield
        except ImageMountError:  # some are OSErrors too, and say more
            raise
        except OSError as error:
            second = None if other is None else self.label(other)
            named = OSError(error.errno, error.strerror, self.label(path), None, second)
            if error.errno == errno.EROFS and self.mode == "ro":
                named.add_note(
                    "mounted with mode='ro'; mode='overlay' takes writes and throws them away, 'rw' keeps them"
                )
            raise named from None

    def open(self, path: PurePosixPath | str, flags: int, mode: int = 0) -> int:
        """A descriptor of ``path``; flags and mode as for os.open."""
        with self.named(path):
            return self._open(path, flags, mode)

    @contextmanager
    def opened(self, path: PurePosixPath, flags: int = os.O_PATH) -> Iterator[int]:
        """A descriptor of ``path`` for the block. An OSError inside the block gets the name of ``path``."""
        with self.named(path), self._descriptor(path, flags) as descriptor:
            yield descriptor

    def status(self, path: PurePosixPath, *, follow: bool = True) -> os.stat_result:
        """As os.stat, or os.lstat where ``follow`` is false."""
        with self.opened(path, os.O_PATH | (0 if follow else os.O_NOFOLLOW)) as descriptor:
            return os.fstat(descriptor)

    @property
    def sees_all_xattrs(self) -> bool:
        """See :attr:`Opener.sees_all_xattrs`."""
        return self._opener.sees_all_xattrs

    def xattrs(self, paths: Sequence[str], *, follow: bool) -> list[dict[str, bytes]]:
        """The extended attributes of each path; not ``follow``: of a link itself."""
        found = []
        each = self._opener.xattrs(paths, follow=follow)
        for path in paths:
            with self.named(path):
                try:
                    found.append(next(each))
                except OSError:
                    self._refuse_unmounted(path)
                    raise
        return found

    def link_text(self, path: PurePosixPath) -> str:
        """What the link says, as it stands. OSError EINVAL where ``path`` is no link."""
        with self.named(path):
            target = self._link_text(path)
            if target is None:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return target

    def listing(self, path: PurePosixPath, *, follow: bool = True) -> list[Entry]:
        """The names in folder ``path``, sorted, read to the end: nothing stays open.

        :param follow: false makes a link an error, for walks that must not follow links
        """
        with self.opened(path, os.O_RDONLY | os.O_DIRECTORY | (0 if follow else os.O_NOFOLLOW)) as descriptor:
            # Only questions that do not follow: DirEntry would follow a link on the host.
            with os.scandir(descriptor) as entries:
                found = [Entry(each.name, each.is_dir(follow_symlinks=False), each.is_symlink()) for each in entries]
        return sorted(found, key=lambda entry: entry.name)

    def resolve(self, path: PurePosixPath) -> PurePosixPath:
        """``path`` without links and without ``..``; parts that do not exist are kept.

        Each part is asked for below parts already known to be no links. OSError ELOOP past the kernel's 40 links.
        """
        pending = _parts(path)[::-1]
        done: list[str] = []
        links = 0
        with self.named(path):
            while pending:
                part = pending.pop()
                if part == "..":
                    del done[-1:]
                    continue
                target = self._link_text_or_none(PurePosixPath("/", *done, part))
                if target is None:
                    done.append(part)
                    continue
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if target.startswith("/"):
                    done.clear()
                pending += _parts(target)[::-1]
        return PurePosixPath("/", *done)

    def change(self, call: str, path: PurePosixPath, *, mode: int = 0) -> None:
        """Change the tree at ``path``; ``call`` is a name of :data:`.confined.CALLS`."""
        with self.named(path):
            self._change(Change(call, str(path), mode=mode))

    def link(self, path: PurePosixPath, text: str) -> None:
        """Make a symbolic link ``path`` that says ``text``."""
        with self.named(path):
            self._change(Change("symlink", str(path), text))

    def hard_link(self, path: PurePosixPath, existing: PurePosixPath) -> None:
        """link(2) inside the image: ``path`` becomes one more name of ``existing``."""
        with self.named(existing, path):
            self._change(Change("link", str(path), str(existing)))

    def rename(self, path: PurePosixPath, target: PurePosixPath) -> None:
        """rename(2) inside the image; ``target`` is replaced where it exists."""
        with self.named(path, target):
            self._change(Change("rename", str(path), str(target)))

    def _change(self, change: Change) -> None:
        try:
            self._opener.change(change)
        except OSError:
            self._refuse_unmounted(change.path)
            raise

    def _open(self, path: PurePosixPath | str, flags: int, mode: int = 0) -> int:
        try:
            return self._opener.open(str(path), flags, mode)
        except OSError:
            self._refuse_unmounted(str(path))
            raise

    def _refuse_unmounted(self, path: str) -> None:
        if self._closed:
            raise ImageUnmounted(image=self.name, path=path) from None

    @contextmanager
    def _descriptor(self, path: PurePosixPath, flags: int) -> Iterator[int]:
        descriptor = self._open(path, flags)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _link_text(self, path: PurePosixPath) -> str | None:
        with self._descriptor(path, os.O_PATH | os.O_NOFOLLOW) as descriptor:
            if stat.S_ISLNK(os.fstat(descriptor).st_mode):
                return os.readlink("", dir_fd=descriptor)  # readlinkat(2): an empty name is the descriptor itself.
            return None

    def _link_text_or_none(self, path: PurePosixPath) -> str | None:
        try:
            return self._link_text(path)
        except (FileNotFoundError, NotADirectoryError):
            return None


def _parts(path: PurePosixPath | str) -> list[str]:
    return [part for part in str(path).split("/") if part not in ("", ".")]


def _no_openat2(error: OSError) -> CapabilityMissing:
    return CapabilityMissing(
        capability="openat2",
        reason=f"the system call answered {error}, and without it a link in an image could reach this machine's files",
        hint="use Linux 5.6 or newer, and in a container a seccomp profile that lets openat2 through",
    )
