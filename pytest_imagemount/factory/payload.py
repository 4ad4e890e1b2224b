"""What fills one partition, or a whole image without a table, as a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import ImageMountError, RequestInvalid
from .content import content_tree
from .filesystems import Volume, make_filesystem
from .identity import filesystem_uuid
from .sizes import parse_size, round_up

if TYPE_CHECKING:
    from pathlib import Path

    from .identity import Seed
    from .partition import Partition


def make_payload(partition: Partition, target: Path, scratch: Path, *, seed: Seed, what: str, sector_size: int) -> int:
    """Make what ``partition`` is to hold in the new file ``target``; return its size in bytes.

    :param scratch: a folder that does not exist, for the programs
    :param what: names the partition in errors and in what is derived from ``seed``
    """
    size = None if partition.size is None else parse_size(partition.size)
    if size is not None and size % sector_size:
        raise RequestInvalid(argument="size", value=str(size), reason=f"is not of whole {sector_size}-byte sectors")
    try:
        if partition.fstype is None:
            _make_raw(partition.raw or b"", target, size, sector_size)
        else:
            volume = Volume(
                fstype=partition.fstype,
                tree=content_tree(partition.content),
                size=size,
                label=partition.label or "",
                uuid=filesystem_uuid(partition.fstype, partition.fs_uuid, seed, what),
                sector_size=sector_size,
                options=tuple(partition.mkfs_options),
            )
            make_filesystem(volume, target, scratch)
    except ImageMountError as error:
        error.add_note(f"while making {partition.fstype or 'raw bytes'} for {what}")
        raise
    return target.stat().st_size


def _make_raw(data: bytes, target: Path, size: int | None, sector_size: int) -> None:
    if size is not None and len(data) > size:
        raise RequestInvalid(argument="size", value=str(size), reason=f"the raw bytes are {len(data)}")
    target.write_bytes(data)
    os.truncate(target, size or round_up(len(data), sector_size) or sector_size)
