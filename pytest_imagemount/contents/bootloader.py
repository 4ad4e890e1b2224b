"""The boot loader of an image, and the command line that the kernel gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import FactsMissing
from .assignments import parse_assignments
from .boot_entry import BOOT_FOLDERS, MOST_BYTES, Bootloader, boot_folders, one_line
from .boot_grub import CONFIGURATIONS, read_grub
from .boot_small import EXTLINUX_CONFIGURATIONS, PI_COMMAND_LINE, PI_CONFIGURATION, read_extlinux, read_raspberrypi
from .boot_specification import text_entries, unified_kernels
from .reading import first_text, missing, read_text, regular_files

if TYPE_CHECKING:
    from ..image_path import ImagePath

_SYSTEMD_BOOT = "EFI/systemd"
_KERNEL_INSTALL = ("etc/kernel/cmdline", "usr/lib/kernel/cmdline")
_GRUB_DEFAULT = "etc/default/grub"
_HINT = "mount the partition that holds /boot or is the ESP; `imagemount inspect` lists the partitions"


def read_bootloader(root: ImagePath) -> Bootloader:
    """The first that is there: GRUB, systemd-boot or another that takes the Boot Loader Specification's entries,
    extlinux, the Raspberry Pi's firmware.

    :raises FactsMissing: there is none
    """
    readers = (read_grub, _read_specification, read_extlinux, read_raspberrypi)
    for read in readers:
        found = read(root)
        if found is not None:
            return found
    names = (*CONFIGURATIONS, "loader/entries", "EFI/Linux", _SYSTEMD_BOOT, *EXTLINUX_CONFIGURATIONS, PI_CONFIGURATION)
    folders = ", ".join(f"/{folder}" for folder in BOOT_FOLDERS)
    raise missing(root, "boot loader", [f"{name} in {folders}" for name in names], _HINT)


def read_kernel_cmdline(root: ImagePath) -> str:
    """The command line of the kernel, with single spaces.

    What the boot loader's first entry with a kernel says, since that is what the kernel gets. Where the image has no
    such entry, what one would be made from: ``/etc/kernel/cmdline``, ``/usr/lib/kernel/cmdline``, then
    ``GRUB_CMDLINE_LINUX`` and ``GRUB_CMDLINE_LINUX_DEFAULT`` of ``/etc/default/grub`` and ``grub.d``, then a
    ``cmdline.txt`` of a Raspberry Pi that stands alone.

    :raises FactsMissing: none of them is there
    """
    looked: list[str] = []
    try:
        loader = read_bootloader(root)
    except FactsMissing as error:
        looked += error.looked
    else:
        for entry in loader.entries:
            if entry.linux is not None or loader.kind == "raspberrypi":
                return entry.options
        looked.append(loader.path)
    found = first_text(root, _KERNEL_INSTALL, MOST_BYTES)
    if found is not None:
        return one_line(found[1])
    from_grub = _grub_default(root)
    if from_grub is not None:
        return from_grub
    for folder in boot_folders(root):
        text = read_text(folder / PI_COMMAND_LINE, MOST_BYTES)
        if text is not None:
            return one_line(text)
    looked += [f"/{place}" for place in (*_KERNEL_INSTALL, _GRUB_DEFAULT)]
    raise missing(root, "kernel command line", looked, _HINT)


def _read_specification(root: ImagePath) -> Bootloader | None:
    for folder in boot_folders(root):
        found = (*text_entries(folder), *unified_kernels(folder))
        if found or (folder / _SYSTEMD_BOOT).is_dir() or (folder / "loader/loader.conf").is_file():
            return Bootloader("systemd-boot", str(folder), found)
    return None


def _grub_default(root: ImagePath) -> str | None:
    text = read_text(root / _GRUB_DEFAULT, MOST_BYTES)
    if text is None:
        return None
    settings = parse_assignments(text)
    for path in regular_files(root / f"{_GRUB_DEFAULT}.d"):
        if path.suffix == ".cfg":
            settings |= parse_assignments(read_text(path, MOST_BYTES) or "")
    names = ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT")
    return one_line(" ".join(settings.get(name, "") for name in names))
