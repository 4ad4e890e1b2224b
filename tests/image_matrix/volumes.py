"""Volumes of the matrix: blocks of bytes in which a file system is, made by the programs that come with each kind.

A physical volume and the members of an array are made empty, and the file system is put where their metadata say that
the data begin: so one serves for many file systems.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from tests.system.volume_images import PASSPHRASE, blank, loops, luks_format, lvm, run

from .filesystems import LARGE_BLOCKS, SUBVOLUME

if TYPE_CHECKING:
    from pathlib import Path

_MIB = 1 << 20
_ROOMS = (6 * _MIB, 16 * _MIB)
"""Bytes of a logical volume and of an array: for the small file systems, and for the others."""
_METADATA = 2 * _MIB
"""Bytes beside those, enough for LVM and MD."""
_LUKS_HEAD = 2 * _MIB
"""Bytes before the encrypted data; in what cryptsetup makes by itself there are more."""


@dataclass(frozen=True)
class Blocks:
    """What goes into the partitions, and how the fixture is told of it.

    :param members: of an array there are two, else one
    :param options: for ``mounted_image``
    """

    members: tuple[bytes, ...]
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Template:
    """Empty members of a volume, in each of which its data begin at byte ``start``."""

    members: tuple[bytes, ...]
    start: int

    def filled(self, filesystem: bytes) -> tuple[bytes, ...]:
        end = self.start + len(filesystem)
        return tuple(member[: self.start] + filesystem + member[end:] for member in self.members)


class VolumeMaker:
    """Makes volumes in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._physical_volume = cache(self._make_physical_volume)
        self._array = cache(self._make_array)
        self._luks_head = cache(self._make_luks_head)

    def make(self, kind: str, filesystem: bytes, fstype: str) -> Blocks:
        """A volume of that kind with that file system in it."""
        match kind:
            case "none":
                return Blocks((filesystem,))
            case "subvolume":
                return Blocks((filesystem,), {"subvolume": SUBVOLUME})
            case "luks1" | "luks2":
                return Blocks((self._luks(kind, filesystem),), {"passphrase": PASSPHRASE})
            case "verity":
                return self._verity(filesystem, 4096 if fstype in LARGE_BLOCKS else 512)
            case "lvm":
                return Blocks(
                    self._physical_volume(_room_for(filesystem)).filled(filesystem), {"volume": "matrix/root"}
                )
            case _:
                assert kind == "raid1"
                return Blocks(self._array(_room_for(filesystem)).filled(filesystem))

    def _luks(self, kind: str, filesystem: bytes) -> bytes:
        """Version 2 is a header of version 2 before what qemu encrypted in version 1 with the same key."""
        head = self._luks_head(kind)
        key, inside, path = (self._folder / name for name in ("secret", "inside", "luks"))
        key.write_text(PASSPHRASE)
        inside.write_bytes(filesystem)
        path.write_bytes(self._luks_head("luks1").ljust(_LUKS_HEAD + len(filesystem), b"\0"))
        target = f"driver=luks,key-secret=key,file.filename={path}"
        secret = f"secret,id=key,file={key}"
        run("qemu-img", "convert", "-n", "-f", "raw", "--object", secret, "--target-image-opts", inside, target)
        inside.unlink()
        return head + _taken(path)[_LUKS_HEAD:]

    def _make_luks_head(self, kind: str) -> bytes:
        key, path = self._folder / "key", blank(self._folder / "head", 2 * _LUKS_HEAD)
        key.write_bytes(hashlib.sha512(b"the key of both versions").digest())
        options = [f"--volume-key-file={key}", "--key-size=512", "--cipher=aes-xts-plain64"]
        options += ["--hash=sha256", f"--offset={_LUKS_HEAD // 512}"]
        luks_format(path, kind=kind, extra=options)
        return _taken(path)[:_LUKS_HEAD]

    def _verity(self, filesystem: bytes, block: int) -> Blocks:
        """The hashes follow the data."""
        path = self._folder / "verity"
        path.write_bytes(filesystem)
        at = len(filesystem)
        data = f"--data-block-size={block}", f"--data-blocks={at // block}", f"--hash-offset={at}"
        printed = run("veritysetup", "format", *data, path, path)
        root = re.search(r"Root hash:\s*([0-9a-f]+)", printed)
        assert root, printed
        made = _taken(path)
        return Blocks((made.ljust(-(-len(made) // _MIB) * _MIB, b"\0"),), {"verity": f"{root[1]}@{at}"})

    def _make_physical_volume(self, room: int) -> _Template:
        """A physical volume with one logical volume of at least ``room`` bytes, in one piece."""
        path = blank(self._folder / "lvm", room + _METADATA)
        with loops((path, 0, None)) as [device]:
            lvm("vgcreate", "--physicalextentsize", "1m", "matrix", device)
            # Not active, and so not wiped either: nothing of it comes to the device mapper.
            inactive = ("--activate", "n", "--zero", "n", "--wipesignatures", "n")
            lvm("lvcreate", "--extents", "100%FREE", "--name", "root", *inactive, "matrix")
            start = lvm("pvs", "--noheadings", "--nosuffix", "--units", "b", "-o", "pe_start", device)
        return _Template((_taken(path),), int(start))

    def _make_array(self, room: int) -> _Template:
        """The two members of a mirror of at least ``room`` bytes."""
        paths = [blank(self._folder / f"raid-{number}", room + _METADATA) for number in range(2)]
        with loops(*((path, 0, None) for path in paths)) as devices:
            array = f"/dev/md/matrix-{os.getpid()}"
            kind = ("--level=1", "--raid-devices=2", "--metadata=1.2", "--data-offset=1M", "--bitmap=none")
            run("mdadm", "--create", array, *kind, "--assume-clean", "--run", *devices)
            run("mdadm", "--stop", array)
            shown = run("mdadm", "--examine", devices[0])
        found = re.search(r"Data Offset : ([0-9]+) sectors", shown)
        assert found, shown
        return _Template(tuple(map(_taken, paths)), int(found[1]) * 512)


def _room_for(filesystem: bytes) -> int:
    return next(room for room in _ROOMS if len(filesystem) <= room)


def _taken(path: Path) -> bytes:
    """What is in the file, which is gone then."""
    data = path.read_bytes()
    path.unlink()
    return data
