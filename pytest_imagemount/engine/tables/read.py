"""The partition table of a virtual disk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ...errors import DeviceFailed, ImageMountError
from .apple import read_apple
from .bsd import read_bsd
from .gpt import read_gpt
from .mbr import read_mbr
from .partition_table import Partition, PartitionTable
from .sector_size import read_with_sectors_found_out
from .sun import read_sun

if TYPE_CHECKING:
    from ..reader import Reader

__all__ = ["Partition", "PartitionTable", "read_table"]


def read_table(reader: Reader, image: str) -> PartitionTable | None:
    """The partition table of the disk behind ``reader``, or None where it has none.

    A protective MBR entry (type 0xEE) makes it a GPT, whatever else the MBR lists: of a hybrid MBR the GPT wins, as
    for the kernel. Without that entry there is no GPT, even if a header of one is left over from former days. Where
    there is neither of the two, it may be a Sun or BSD disklabel or an Apple partition map, in the kernel's order.

    :param image: the name that errors use
    :raises PartitionTableInvalid: both copies of the GPT are corrupt
    :raises DeviceFailed: the disk cannot be read
    """
    try:
        table = _read(reader, image)
        return replace(table, disk_size=reader.size) if table else None
    except OSError as error:
        if isinstance(error, ImageMountError):
            raise
        raise DeviceFailed(
            image=image,
            device="partition table",
            reason=f"cannot be read: {error.strerror or error}",
            hint="see whether the medium that the image is on is sound",
            errno=error.errno,
        ) from error


def _read(reader: Reader, image: str) -> PartitionTable | None:
    mbr = read_mbr(reader)
    if mbr is None:
        return read_sun(reader) or read_apple(reader) or read_bsd(reader)
    if mbr.is_protective:
        return read_gpt(reader, image)
    return read_with_sectors_found_out(reader, mbr)
