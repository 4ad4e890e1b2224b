"""Modes and device numbers as Linux file systems store them."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from ..content import Device, Directory, Symlink

if TYPE_CHECKING:
    from ..content import Node

_DEVICES = {"char": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}


def full_mode(node: Node) -> int:
    """The mode of ``node`` with the bits of its type."""
    if isinstance(node, Directory):
        return stat.S_IFDIR | node.mode
    if isinstance(node, Symlink):
        return stat.S_IFLNK | node.mode
    if isinstance(node, Device):
        return _DEVICES[node.kind] | node.mode
    return stat.S_IFREG | node.mode


def wide_number(device: Device) -> int:
    """The 32-bit number of ``device`` in the form of the kernel's ``new_encode_dev``: 12 bits major, 20 bits minor."""
    return device.minor & 0xFF | device.major << 8 | (device.minor & ~0xFF) << 12
