"""cloop, version 2: the header checked. Source: qemu's block/cloop.c."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .content import Content

_MAGIC = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"


def claims(content: Content) -> bool:
    """The shell script at its start."""
    return content.peek(len(_MAGIC), 0) == _MAGIC


def virtual_size(content: Content) -> int:
    """The virtual size in bytes."""
    block_size, blocks = struct.unpack(">II", content.read(8, 128, "cloop header"))
    if not block_size or block_size % 512 or block_size > 64 << 20:
        raise content.corrupt(f"its cloop header gives {block_size} bytes a block")
    content.require_table((blocks + 1) * 8, 136, "cloop offset table")
    return int(block_size * blocks)
