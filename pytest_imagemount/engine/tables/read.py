"""The partition table of a virtual disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import DeviceFailed, ImageMountError
from .gpt import read_gpt
from .mbr import read_mbr
from .partition_table import Partition, PartitionTable

if TYPE_CHECKING:
    from ..reader import Reader

__all__ = ["Partition", "PartitionTable", "read_table"]


def read_table(reader: Reader, image: str) -> PartitionTable | None:
    """The partition table of the disk behind ``reader``, or None where it has none.

    A protective MBR entry (type 0xEE) makes it a GPT, whatever else the MBR lists: of a hybrid MBR the GPT wins, as
    for the kernel. Without that entry there is no GPT, even if a header of one is left over from former days.

    :param image: the name that errors use
    :raises PartitionTableInvalid: both copies of the GPT are corrupt
    :raises DeviceFailed: the disk cannot be read
    """
    try:
        mbr = read_mbr(reader)
        if mbr is None:
            return None
        if mbr.is_protective:
            return read_gpt(reader, image)
        return mbr.to_table(reader)
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
