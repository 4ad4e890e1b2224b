"""How large the sectors are that an MBR counts in, which it does not say.

They are 512 bytes nearly always. Images of disks with larger ones are told by what lies where the partitions start: a
table read with too small a sector has every partition too near to the start of the disk, among zeros or in the middle
of files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import CapabilityMissing
from ..superblock import probe_on

if TYPE_CHECKING:
    from ..reader import Reader
    from .mbr import Mbr
    from .partition_table import PartitionTable

_LARGER = (4096, 2048, 1024)
_MOST_PROBED = 8


def read_with_sectors_found_out(reader: Reader, mbr: Mbr) -> PartitionTable:
    """The table of ``mbr``, with sectors of 512 bytes unless only larger ones make sense of it.

    They do where a superblock is found with larger ones only, or where the chain of logical partitions is whole with
    those only. Nothing is looked at where partitions would end beyond the disk with sectors of 1024 bytes already.

    :raises OSError: the disk cannot be read
    """
    table = mbr.to_table(reader)
    last = max((one.window.end for one in table.partitions), default=0)
    if last * 2 > reader.size or _holds_something(reader, table):
        return table
    for sector in _LARGER:
        larger = mbr.to_table(reader, sector)
        if not larger.warnings and (table.warnings or _holds_something(reader, larger)):
            return larger
    return table


def _holds_something(reader: Reader, table: PartitionTable) -> bool:
    """Whether a superblock is where one of the partitions starts; not, where there is no libblkid to tell."""
    holders = [one for one in table.partitions if not one.container][:_MOST_PROBED]
    try:
        return any(probe_on(reader, one.window) is not None for one in holders)
    except CapabilityMissing:
        return False
