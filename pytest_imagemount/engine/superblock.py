"""What a superblock says: file system type, label, UUID. By libblkid, which mount(8) and udev use too.

Through ctypes and not by the ``blkid`` program: the same answer at a tenth of the time or less, since no process is
started. Source: libblkid's blkid.h and its manual, "Superblocks probing".
"""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from ..errors import CapabilityMissing, DeviceFailed
from .reader import FileReader, Window
from .volume_places import metadata_windows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .reader import Reader

AMBIVALENT = "ambivalent"
"""The ``usage`` of a window in which more than one kind of superblock was found."""

_LABEL, _UUID, _TYPE, _USAGE, _VERSION = 1 << 1, 1 << 3, 1 << 5, 1 << 7, 1 << 8
_FOUND, _NOTHING, _AMBIVALENT = 0, 1, -2

# libblkid seeks and reads, and a descriptor has one offset: two threads probing the same one would mix their reads.
_offset_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Superblock:
    """What libblkid found. ``type`` is its name of the kind (``ext4``, ``vfat``, ``swap``, ``crypto_LUKS``).

    ``usage`` is ``filesystem``, ``raid``, ``crypto`` or ``other``; :data:`AMBIVALENT` where signatures of several kinds
    are there at once, so that nobody can tell which one is meant: ``type`` says so in words then.
    """

    type: str
    usage: str
    label: str | None = None
    uuid: str | None = None
    version: str | None = None

    @property
    def mountable(self) -> bool:
        """It is a file system."""
        return self.usage == "filesystem"


_CONFLICT = Superblock(type="signatures of several file systems at once", usage=AMBIVALENT)


@cache
def libblkid() -> ctypes.CDLL:
    """The library.

    :raises CapabilityMissing: it is not installed
    """
    try:
        library = ctypes.CDLL("libblkid.so.1", use_errno=True)
    except OSError as error:
        raise CapabilityMissing(
            capability="libblkid", reason=str(error), hint="install package libblkid1 (or libblkid)"
        ) from None
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.blkid_new_probe.restype = pointer
    library.blkid_free_probe.argtypes = (pointer,)
    library.blkid_free_probe.restype = None
    library.blkid_probe_set_device.argtypes = (pointer, number, ctypes.c_int64, ctypes.c_int64)
    library.blkid_probe_enable_superblocks.argtypes = (pointer, number)
    library.blkid_probe_set_superblocks_flags.argtypes = (pointer, number)
    library.blkid_do_safeprobe.argtypes = (pointer,)
    library.blkid_probe_lookup_value.argtypes = (
        pointer,
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.POINTER(ctypes.c_size_t),
    )
    return library


def probe(fd: int, window: Window, *, image: str = "disk") -> Superblock | None:
    """The superblock in ``window`` of the file or block device open at ``fd``, or None if none is known.

    :param image: the name that errors use
    :raises CapabilityMissing: libblkid is not installed
    :raises DeviceFailed: it cannot be read
    """
    library = libblkid()
    # An empty window must not reach libblkid, to which size 0 means all up to the end.
    if window.size <= 0:
        return None
    with _offset_lock, _offset_and_readahead_kept(fd):
        handle = library.blkid_new_probe()
        if not handle:
            raise MemoryError
        try:
            ctypes.set_errno(0)
            if library.blkid_probe_set_device(handle, fd, window.offset, window.size):
                raise _failed(image, window, "cannot be given to libblkid")
            library.blkid_probe_enable_superblocks(handle, 1)
            library.blkid_probe_set_superblocks_flags(handle, _LABEL | _UUID | _TYPE | _USAGE | _VERSION)
            result = library.blkid_do_safeprobe(handle)
            if result == _NOTHING:
                return None
            if result == _AMBIVALENT:
                return _CONFLICT
            if result != _FOUND:
                raise _failed(image, window, "cannot be probed")
            return _superblock(library, handle)
        finally:
            library.blkid_free_probe(handle)


def probe_on(reader: Reader, window: Window, *, image: str = "disk") -> Superblock | None:
    """The superblock in ``window`` of the disk behind ``reader``, by the shorter way that there is to it."""
    if isinstance(reader, FileReader):
        return probe(reader.fd, window, image=image)
    return probe_reader(reader, window, image=image)


def probe_reader(reader: Reader, window: Window, *, image: str = "disk") -> Superblock | None:
    """The same for a disk that has no descriptor: the places where superblocks lie, copied to a sparse file in memory.

    The file is as large as the window, its memory a few MiB. A label that a file system keeps far inside of itself
    (HFS+, UDF) may be missing.
    """
    fd = os.memfd_create("imagemount-probe", os.MFD_CLOEXEC)
    try:
        size = max(0, min(window.size, reader.size - window.offset))
        os.truncate(fd, size)
        for place in metadata_windows(reader, Window(window.offset, size)):
            data = reader.pread(place.size, window.offset + place.offset)
            while data:
                written = os.pwrite(fd, data, place.offset)
                data, place = data[written:], Window(place.offset + written, place.size - written)
        return probe(fd, Window(0, size), image=image)
    finally:
        os.close(fd)


@contextmanager
def _offset_and_readahead_kept(fd: int) -> Iterator[None]:
    """libblkid moves the offset and sets POSIX_FADV_RANDOM for the open file.

    The latter would stay: a loop device made of this very open file would then read its file without readahead.
    """
    try:
        offset = os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        offset = None
    try:
        yield
    finally:
        if offset is not None:
            os.lseek(fd, offset, os.SEEK_SET)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_NORMAL)


def _superblock(library: ctypes.CDLL, handle: int) -> Superblock | None:
    def value(name: bytes) -> str | None:
        data, length = ctypes.c_void_p(), ctypes.c_size_t()
        if library.blkid_probe_lookup_value(handle, name, ctypes.byref(data), ctypes.byref(length)) or not data:
            return None
        raw = ctypes.string_at(data, length.value).partition(b"\0")[0]
        return raw.decode("utf-8", "backslashreplace") or None

    kind = value(b"TYPE")
    if kind is None:
        return None
    return Superblock(kind, value(b"USAGE") or "other", value(b"LABEL"), value(b"UUID"), value(b"VERSION"))


def _failed(image: str, window: Window, what: str) -> DeviceFailed:
    number = ctypes.get_errno() or None
    return DeviceFailed(
        image=image,
        device=f"{window.size} bytes from byte {window.offset}",
        reason=f"{what}: {os.strerror(number) if number else 'no reason given'}",
        hint="see whether these bytes are inside the disk, and its medium is sound",
        errno=number,
    )
