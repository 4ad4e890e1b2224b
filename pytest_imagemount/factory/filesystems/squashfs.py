"""squashfs by mksquashfs from a tar stream, which has every owner, mode, link, device and attribute in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import programs
from ..sizes import KIB
from ..staging import write_tar
from .volume import FilesystemKind, Volume

if TYPE_CHECKING:
    from pathlib import Path

    from ..content import Tree


def _make(volume: Volume, target: Path, scratch: Path) -> None:
    archive = scratch / "content.tar"
    write_tar(volume.tree, archive)
    quiet = ["-quiet", "-no-progress", "-no-recovery", "-processors", "1"]
    with archive.open("rb") as stream:
        argv = ["mksquashfs", "-", str(target), "-tar", *quiet, *volume.options]
        programs.run(argv, stdin=stream, extra_environment=volume.environment())
    # With -tar, mksquashfs (4.5) takes no owner and no time for the root folder: it is then the builder's, of now.
    # Appending an empty folder makes a new root, for which it does take them.
    empty, root = scratch / "empty", volume.tree.root
    empty.mkdir()
    argv = ["mksquashfs", str(empty), str(target), *quiet, "-root-mode", f"{root.mode:o}", "-root-uid", str(root.uid)]
    argv += ["-root-gid", str(root.gid), "-root-time", str(volume.tree.time(root))]
    programs.run(argv, extra_environment=volume.environment())


def _default_size(tree: Tree) -> int:
    return tree.data_size(KIB)


KIND = FilesystemKind(
    make=_make,
    default_size=_default_size,
    minimum=4 * KIB,
    label_limit=0,
    lacks=frozenset({"uuid"}),
    sized=False,
)
