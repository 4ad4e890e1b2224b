"""btrfs by ``mkfs.btrfs --rootdir``; owners, modes, times and devices are then written into the inode items.

mkfs.btrfs takes owners from the staged files. A plain user owns them all, and a user namespace (where the machine
allows one) would make all of them root's but could not make two owners.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ... import programs
from ...errors import ProgramFailed
from ..content import Device, Directory, Hardlink
from ..sizes import MIB
from ..staging import stage_tree
from .btrfs_tree import ROOT_FOLDER, FsTree
from .volume import FilesystemKind, Volume

if TYPE_CHECKING:
    from pathlib import Path

    from ..content import Tree


_UNSEEN = "cannot check mount status"


def _make(volume: Volume, target: Path, scratch: Path) -> None:
    staged = scratch / "tree"
    stage_tree(volume.tree, staged)
    label = ["-L", volume.label] if volume.label else []
    argv = ["mkfs.btrfs", "-q", "-U", volume.uuid, "--rootdir", str(staged), *label, *volume.options, str(target)]
    try:
        programs.run(argv, extra_environment=volume.environment())
    except ProgramFailed as error:
        if _UNSEEN in error.stderr:
            error.add_note(
                "mkfs.btrfs looks at the file behind every mounted loop device, and this user may not look "
                "at one of them (see losetup --list): build as root, or once that is unmounted"
            )
        raise
    with target.open("r+b", buffering=0) as file:
        fs_tree = FsTree(file)
        _apply(volume.tree, fs_tree, argv)
        fs_tree.write()


def _apply(tree: Tree, fs_tree: FsTree, argv: list[str]) -> None:
    numbers = {"": ROOT_FOLDER}
    fs_tree.set_inode(ROOT_FOLDER, tree.root, tree.time(tree.root))
    for path, entry in tree.entries.items():
        parent, _, name = path.rpartition("/")
        number = fs_tree.names.get((numbers[parent], os.fsencode(name)))
        if number is None:
            raise ProgramFailed(argv=argv, returncode=0, reason=f"left out {path!r}")
        if isinstance(entry, Directory):
            numbers[path] = number
        if not isinstance(entry, Hardlink):
            fs_tree.set_inode(number, entry, tree.time(entry))
        if isinstance(entry, Device):
            fs_tree.set_type(number, entry)


def _default_size(tree: Tree) -> int:
    return max(128 * MIB, 112 * MIB + tree.data_size(4096) * 5 // 4 + len(tree.entries) * 4096)


KIND = FilesystemKind(
    make=_make,
    default_size=_default_size,
    minimum=16 * MIB,
    label_limit=255,
    lacks=frozenset({"xattrs"}),
)
