"""From a cell to its image files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from .filesystems import make_filesystem
from .formats import make_image
from .tables import make_disk
from .volumes import Blocks, VolumeMaker

if TYPE_CHECKING:
    from pathlib import Path

    from .cells import Cell


@dataclass(frozen=True)
class Built:
    """The files of a cell.

    :param images: one, or of an array without a partition table one for each member; of each all its files
    :param options: for ``mounted_image``
    """

    images: tuple[tuple[Path, ...], ...]
    partition: int | None
    options: dict[str, str]

    @property
    def image(self) -> Path | list[Path]:
        """What ``mounted_image`` is given."""
        firsts = [files[0] for files in self.images]
        return firsts if len(firsts) > 1 else firsts[0]

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(file for files in self.images for file in files)


class Builder:
    """Builds the images of cells. The last file systems and volumes are kept: cells with the same ones come together.

    :param folder: for what is being made
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._volumes = VolumeMaker(folder)
        self._filesystem = lru_cache(maxsize=_KEPT)(self._make_filesystem)
        self._volume = lru_cache(maxsize=_KEPT)(self._make_volume)

    def build(self, cell: Cell, folder: Path) -> Built:
        """The image of ``cell``, in ``folder``."""
        blocks = self._volume(cell.volume, cell.filesystem, 4096 if cell.table == "gpt-4096" else 512)
        # Without a table each member of an array is an image of its own.
        disks = [[member] for member in blocks.members] if cell.table == "none" else [list(blocks.members)]
        images = []
        for number, of_disk in enumerate(disks):
            disk = folder / f"disk-{number}"
            partition = make_disk(cell.table, of_disk, disk)
            images.append(tuple(make_image(cell.format, disk, folder / f"image-{number}")))
        return Built(tuple(images), partition, dict(blocks.options))

    def _make_volume(self, volume: str, kind: str, sector_size: int) -> Blocks:
        return self._volumes.make(volume, self._filesystem(kind, sector_size, volume == "subvolume"), kind)

    def _make_filesystem(self, kind: str, sector_size: int, subvolume: bool) -> bytes:
        return make_filesystem(kind, sector_size, self._folder, subvolume=subvolume)


_KEPT = 4
"""In the lab memory is short, and each may be of 40 MiB."""
