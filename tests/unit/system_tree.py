"""A folder that stands for a mounted image, with the files of a test in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_imagemount.image_path import ImagePath
from pytest_imagemount.image_root import ImageRoot, LocalOpener

if TYPE_CHECKING:
    from pathlib import Path

IMAGE = "disk.raw"


class Link(str):
    """A symbolic link with this text."""

    __slots__ = ()


def make_tree(folder: Path, files: dict[str, str | bytes | Link]) -> ImagePath:
    """The root of an image that is ``folder``, made with ``files``: text, bytes or links; ``name/`` is a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
        elif isinstance(content, Link):
            path.symlink_to(content)
        else:
            # Never through a link that an earlier name made: it would lead out of the tree.
            assert not path.is_symlink(), name
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return ImagePath(ImageRoot(IMAGE, folder, "ro", LocalOpener(folder)))
