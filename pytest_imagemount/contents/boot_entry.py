"""What a boot loader offers to start, and where boot loaders keep their files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..image_path import ImagePath

Kind = Literal["grub", "systemd-boot", "extlinux", "raspberrypi"]

BOOT_FOLDERS = ("boot", "efi", "boot/efi", "boot/firmware", "")
"""Where the boot partition is mounted; the last one is for an image mounted that is the boot partition itself."""

MOST_BYTES = 4 << 20
"""Of a configuration file."""


@dataclass(frozen=True, slots=True)
class BootEntry:
    """One entry of the menu.

    :param linux: the kernel as the entry names it, mostly from the root of the boot partition; the file itself for a
        unified kernel image; None where the entry starts something else, or the firmware's choice
    :param initrd: as the entry names them
    :param options: the kernel's command line, parted by single spaces
    """

    title: str
    linux: str | None
    initrd: tuple[str, ...]
    options: str


@dataclass(frozen=True, slots=True)
class Bootloader:
    """The boot loader of an image.

    :param path: the configuration in the image, or the folder of the entries
    :param entries: in the order of the menu
    """

    kind: Kind
    path: str
    entries: tuple[BootEntry, ...]


def boot_folders(root: ImagePath) -> Iterator[ImagePath]:
    """The folders of :data:`BOOT_FOLDERS` that exist."""
    return (root / folder for folder in BOOT_FOLDERS if (root / folder).is_dir())


def one_line(text: str) -> str:
    """With single spaces, and without what a UKI is padded with."""
    return " ".join(text.replace("\0", " ").split())
