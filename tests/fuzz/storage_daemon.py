"""Fuzzing what comes behind our own checks: images that pass them are opened by a real qemu-storage-daemon and read.

An image may be refused, and it may be read. The daemon may not die, hang, take much memory, or open a file that it was
not given.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from pytest_imagemount.engine.image import identify
from pytest_imagemount.engine.nbd.client import NbdError, NbdReader, open_export
from pytest_imagemount.engine.qemu.daemon import StorageDaemon
from pytest_imagemount.engine.qemu.layers import open_disk
from pytest_imagemount.engine.undo import UndoStack
from pytest_imagemount.errors import ImageMountError
from pytest_imagemount.programs import run
from tests.foreign_writers import WRITERS

MOST_MEMORY = 512 << 20
"""Bytes that the daemon may hold."""
_READ = 64 << 10
_FORMATS = (
    ("qcow2",),
    ("qcow2", "-o", "cluster_size=512"),
    ("qcow2", "-c", "-o", "extended_l2=on"),
    ("qcow",),
    ("qed",),
    ("vmdk",),
    ("vmdk", "-o", "subformat=streamOptimized"),
    ("vdi",),
    ("vpc",),
    ("vhdx",),
    ("parallels",),
)


@cache
def seeds() -> dict[str, bytes]:
    """Small images of every format, as qemu-img and the writers here make them."""
    disk = bytes(4096) + b"text " * 4000 + bytes(400_000) + os.urandom(2000)
    disk = disk.ljust(1 << 20, b"\0")
    found = {name: write(disk) for name, write in WRITERS.items()}
    with tempfile.TemporaryDirectory() as folder:
        raw, path = Path(folder) / "raw", Path(folder) / "image"
        raw.write_bytes(disk)
        for format, *options in _FORMATS:
            run(["qemu-img", "convert", "-f", "raw", "-O", format, *options, str(raw), str(path)])
            found[" ".join((format, *options))] = path.read_bytes()
    return found


@cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="imagemount-fuzz-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


class _Running:
    daemon: StorageDaemon | None = None


def _daemon() -> StorageDaemon:
    if _Running.daemon is None or not _Running.daemon.alive:
        _Running.daemon = StorageDaemon(_folder(), timeout=5)
        atexit.register(stop)
    return _Running.daemon


def stop() -> None:
    """End the daemon, which is started anew by the next input."""
    if _Running.daemon is not None:
        _Running.daemon.stop()


def fuzz_one(data: bytes) -> None:
    """Open and read ``data`` as it would be mounted in mode overlay, and write a little over it.

    :raises AssertionError: the daemon is dead, took too much memory, or has a file open that it should not
    """
    daemon = _daemon()
    fd = os.memfd_create("image")
    undo = UndoStack()
    undo.push("close", lambda: os.close(fd))
    try:
        os.write(fd, data)
        with suppress(ImageMountError, NbdError, OSError):
            image = identify(fd, "fuzzed.img")
            node = open_disk(daemon, image, "overlay", lambda: os.memfd_create("scratch"), undo)
            export = daemon.export_nbd(node, writable=False)
            undo.push("export", lambda: daemon.remove_export(export))
            with NbdReader(*open_export(daemon.nbd_socket, export)) as reader:
                for place in (0, reader.size // 2, max(reader.size - _READ, 0)):
                    with suppress(OSError):
                        reader.pread(_READ, place)
        assert daemon.alive, "the daemon died"
        assert _memory(daemon) < MOST_MEMORY
        assert not _strangers(daemon)
    finally:
        assert not undo.run()
    assert daemon.alive, "the daemon died at the end"


def _memory(daemon: StorageDaemon) -> int:
    if daemon.pid is None:
        return 0
    return int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _strangers(daemon: StorageDaemon) -> list[str]:
    if daemon.pid is None:
        return []
    links = []
    for entry in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(entry))  # noqa: PTH115  (what it leads to is no path)
    known = ("/memfd:", "socket:", "pipe:", "anon_inode:", "/dev/null", "/dev/urandom", str(_folder()))
    return [link for link in links if not link.startswith(known)]
