"""A content as real files for the programs that read them, and sparse copies.

Everything is staged as the caller's own, readable and writable by the caller: who builds, and what the umask is, then
makes no difference. Owners, modes and devices get into the image by other ways, which each file system's module knows.
"""

from __future__ import annotations

import os
import tarfile
from typing import TYPE_CHECKING

from .content import Device, Directory, File, Hardlink, Symlink

if TYPE_CHECKING:
    from pathlib import Path
    from typing import IO

    from .content import Entry, Tree

_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)
_TAR_TYPES = {"char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE, "fifo": tarfile.FIFOTYPE}


def copy_sparse(source: Path, target: IO[bytes], offset: int = 0) -> None:
    """Copy all of ``source`` to ``offset`` bytes into ``target``, which is all zeros there.

    Holes, and blocks of 64 KiB that are all zeros, are left out: mkfs.xfs alone writes a log of 64 MiB of zeros.
    """
    with source.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        position = 0
        while position < size:
            try:
                position = os.lseek(file.fileno(), position, os.SEEK_DATA)
                end = os.lseek(file.fileno(), position, os.SEEK_HOLE)
            except OSError:  # ENXIO: nothing but a hole until the end
                break
            while position < end:
                block = os.pread(file.fileno(), min(_BLOCK, end - position), position)
                if block != _ZEROS[: len(block)]:
                    target.seek(offset + position)
                    target.write(block)
                position += len(block)
        # The last block may have been left out: the file must still be that long.
        if os.fstat(target.fileno()).st_size < offset + size:
            target.flush()
            os.truncate(target.fileno(), offset + size)
    target.flush()


def write_data(file: File, target: Path) -> None:
    """Write the data of ``file`` to a new file ``target``."""
    with target.open("xb") as output:
        if isinstance(file.data, (str, bytes)):
            output.write(data_bytes(file.data))
        else:
            copy_sparse(file.data, output)


def data_bytes(data: str | bytes) -> bytes:
    """``data`` as it is written: text as UTF-8."""
    return data.encode() if isinstance(data, str) else data


def stage_tree(tree: Tree, folder: Path) -> None:
    """Make ``tree`` in the new folder ``folder``. Devices are staged as named pipes, which need no privilege."""
    folder.mkdir(0o700)
    for path, entry in tree.entries.items():
        place = folder / path
        if isinstance(entry, Directory):
            place.mkdir(0o755)
        elif isinstance(entry, Symlink):
            place.symlink_to(entry.target)
        elif isinstance(entry, Hardlink):
            place.hardlink_to(folder / entry.target)
        elif isinstance(entry, Device):
            os.mkfifo(place, 0o644)
        else:
            write_data(entry, place)
            os.utime(place, (tree.time(entry), tree.time(entry)))


def write_tar(tree: Tree, target: Path) -> None:
    """Write ``tree`` without its root folder to ``target`` as a tar archive, with all owners, modes and attributes."""
    with tarfile.open(target, "x", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape") as archive:
        for path, entry in tree.entries.items():
            member = _member(path, entry, tree)
            # mksquashfs (4.5) cuts a leading "/", "./" and "../" off a link target that is in a pax header, as one of
            # over 100 bytes or beyond ASCII is; not off one in the GNU form.
            archive.format = tarfile.GNU_FORMAT if isinstance(entry, Symlink) else tarfile.PAX_FORMAT
            if not isinstance(entry, File):
                archive.addfile(member)
            elif isinstance(entry.data, (str, bytes)):
                _add(archive, member, data_bytes(entry.data))
            else:
                with entry.data.open("rb") as data:
                    archive.addfile(member, data)


def _add(archive: tarfile.TarFile, member: tarfile.TarInfo, data: bytes) -> None:
    import io

    archive.addfile(member, io.BytesIO(data))


def _member(path: str, entry: Entry, tree: Tree) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    if isinstance(entry, Hardlink):
        member.type, member.linkname = tarfile.LNKTYPE, entry.target
        return member
    member.mode, member.uid, member.gid, member.mtime = entry.mode, entry.uid, entry.gid, tree.time(entry)
    if isinstance(entry, Directory):
        member.type = tarfile.DIRTYPE
    elif isinstance(entry, Symlink):
        member.type, member.linkname = tarfile.SYMTYPE, entry.target
    elif isinstance(entry, Device):
        member.type, member.devmajor, member.devminor = _TAR_TYPES[entry.kind], entry.major, entry.minor
    else:
        member.size = entry.size
        member.pax_headers = {
            f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape") for name, value in entry.xattrs.items()
        }
    return member
