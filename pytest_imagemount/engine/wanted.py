"""What a caller wants of an image: which part of it, and mounted how."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import RequestInvalid

MODES = ("ro", "overlay", "rw")
BACKENDS = ("auto", "loop", "nbd", "fuse")
LEAST_OVERLAY = 1 << 20
"""Bytes of the smallest overlay: its tables take a third of that before anything is written."""
LOGICAL_VOLUME = "lv:"
"""How a ``partition`` begins that is a logical volume, wherever in the image its volume group is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The wishes of one mount; ``Wanted()`` is the whole image, read-only.

    :param partition: as for the fixture: None, a number, ``"auto"`` or -1, ``KEY=value``, or ``"lv:GROUP/VOLUME"``
    :param fstype: the kernel's name of the file system type; None takes it from the superblock
    :param options: further mount options
    :param whole: with ``partition=None``, take the whole disk even when it has a partition table (to attach it, not
        to mount it)
    :param partition_nodes: make partition nodes too
    :param volume: ``"GROUP/VOLUME"`` of LVM
    :param subvolume: of btrfs, by its path from the top
    :param verity: the root hash of dm-verity, hexadecimal; see :mod:`.volumes.verity` for what may follow it
    :param architecture: whose root partition ``"auto"`` means; None is this machine's
    :param overlay_size: bytes that mode overlay may take at most for each image; None is as many as there are
    :raises RequestInvalid: there is no such mode, or the overlay would be too small
    """

    partition: int | str | None = None
    mode: str = "ro"
    fstype: str | None = None
    options: tuple[str, ...] = ()
    whole: bool = False
    partition_nodes: bool = False
    volume: str | None = None
    subvolume: str | None = None
    verity: str | None = None
    architecture: str | None = None
    overlay_size: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise RequestInvalid(argument="mode", value=repr(self.mode), reason=f"must be one of {', '.join(MODES)}")
        if self.overlay_size is not None and self.overlay_size < LEAST_OVERLAY:
            reason = f"must be at least {LEAST_OVERLAY}"
            raise RequestInvalid(argument="overlay_size", value=str(self.overlay_size), reason=reason)

    @property
    def names_volume(self) -> bool:
        """Whether ``partition`` is none, but a logical volume."""
        return isinstance(self.partition, str) and self.partition.startswith(LOGICAL_VOLUME)

    @property
    def readonly(self) -> bool:
        """Whether nothing is to be written anywhere."""
        return self.mode == "ro"
