"""The nodes and exports of the storage daemon as values, and the parts of the commands that make them."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

_KNOW_BACKING_FILES = frozenset({"qcow", "qcow2", "qed", "vmdk"})


@dataclass(frozen=True, slots=True)
class Node:
    """A node, and what lies below it.

    :param image: the image's name, for messages
    :param size: bytes of its virtual disk
    :param also_opens: files that it may open by name
    :param unnamed: how many nodes are below it that we gave no name
    """

    image: str
    format: str
    size: int
    readonly: bool
    also_opens: Collection[str] = ()
    unnamed: int = 0


@dataclass(frozen=True, slots=True)
class Export:
    """An export. ``path`` is where it is mounted, for FUSE."""

    image: str
    path: Path | None


def file_of(node: str) -> str:
    """The name of the node of the file that ``node`` is in."""
    return f"{node}f"


def file_at(fd: int) -> dict[str, Any]:
    """The options of the file or block device open at ``fd``."""
    driver = "host_device" if stat.S_ISBLK(os.fstat(fd).st_mode) else "file"
    return {"driver": driver, "filename": f"{our_files()}{fd}"}


def image_at(fd: int, format: str, *, backing: str | None = None) -> dict[str, Any]:
    """The options of the image in that file. ``backing`` is the node that it is a difference to; it opens no other."""
    image: dict[str, Any] = {"driver": format, "file": file_at(fd)}
    if format in _KNOW_BACKING_FILES:
        image["backing"] = backing
    return image


def access(*, readonly: bool) -> dict[str, Any]:
    """The options for reading, or for writing too."""
    return {"read-only": True} if readonly else {"discard": "unmap"}


def strangers(listed: Iterable[Mapping[str, Any]], known: Mapping[str, Node]) -> list[str]:
    """The files that qemu has opened of its own accord.

    It opens an external data file or extent that an image names, and we have no way to forbid it. Such a node bears a
    name of qemu's making, and is one more of those than there should be.

    :param listed: what ``query-named-block-nodes`` answers
    :param known: the nodes that we made
    """
    ours = {either for name in known for either in (name, file_of(name))}
    expected = {file for node in known.values() for file in node.also_opens}
    unnamed = [str(node["file"]) for node in listed if node["node-name"] not in ours]
    found = [file for file in unnamed if file not in expected]
    if len(found) <= sum(node.unnamed for node in known.values()):
        return []
    return [file for file in found if our_files() not in file] or found


def our_files() -> str:
    """The folder of the descriptors of this process, for other processes.

    By the pid that /proc has for it, which is another than getpid(2) gives where /proc is that of an outer pid
    namespace.
    """
    return f"/proc/{os.readlink('/proc/self')}/fd/"  # noqa: PTH115  (text: asked at every mount)
