"""The boot loaders whose configuration is a few lines: extlinux and its family, and the Raspberry Pi's firmware."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .boot_entry import MOST_BYTES, BootEntry, Bootloader, boot_folders, one_line
from .reading import entries, first_text, read_text

if TYPE_CHECKING:
    from ..image_path import ImagePath

EXTLINUX_CONFIGURATIONS = (
    "extlinux/extlinux.conf",
    "extlinux.conf",
    "syslinux/syslinux.cfg",
    "syslinux.cfg",
    "isolinux/isolinux.cfg",
)
PI_CONFIGURATION, PI_COMMAND_LINE = "config.txt", "cmdline.txt"

_INITRD_OPTION = re.compile(r"(?:^|\s)initrd=(\S+)")
_PI_FIRMWARE = re.compile(r"bootcode\.bin|start\w*\.elf|cmdline\.txt")


def read_extlinux(root: ImagePath) -> Bootloader | None:
    """The labels of the first configuration; the one that ``DEFAULT`` names comes first."""
    for folder in boot_folders(root):
        found = first_text(folder, EXTLINUX_CONFIGURATIONS, MOST_BYTES)
        if found is not None:
            path, text = found
            return Bootloader("extlinux", str(path), tuple(_labels(text)))
    return None


def read_raspberrypi(root: ImagePath) -> Bootloader | None:
    """One entry, by ``config.txt`` and ``cmdline.txt``; lines that are for some models only are left out."""
    for folder in boot_folders(root):
        text = read_text(folder / PI_CONFIGURATION, MOST_BYTES)
        if text is not None and any(_PI_FIRMWARE.fullmatch(entry.name) for entry in entries(folder)):
            settings = _pi_settings(text)
            prefix = settings.get("os_prefix", "")
            place = folder / f"{prefix}{settings.get('cmdline', PI_COMMAND_LINE)}"
            options = one_line(read_text(place, MOST_BYTES) or "")
            kernel, initrd = settings.get("kernel"), settings.get("initramfs", "").split()[:1]
            linux = None if kernel is None else f"{prefix}{kernel}"
            entry = BootEntry("Raspberry Pi", linux, tuple(f"{prefix}{name}" for name in initrd), options)
            return Bootloader("raspberrypi", str(folder / PI_CONFIGURATION), (entry,))
    return None


def _labels(text: str) -> list[BootEntry]:
    default = ""
    labels: list[tuple[str, dict[str, str]]] = []
    for line in text.split("\n"):
        keyword, *rest = line.split(maxsplit=1) or [""]
        value = rest[0].strip() if rest else ""
        if keyword.lower() == "default":
            default = value
        elif keyword.lower() == "label":
            labels.append((value, {}))
        elif labels and keyword.lower() == "menu" and value.lower().startswith("label "):
            labels[-1][1]["title"] = value[6:].strip().replace("^", "")
        elif labels:
            labels[-1][1].setdefault(keyword.lower(), value)
    labels.sort(key=lambda label: label[0] != default)
    return [_label(name, settings) for name, settings in labels]


def _label(name: str, settings: dict[str, str]) -> BootEntry:
    options = settings.get("append", "")
    in_options = _INITRD_OPTION.search(options)
    initrd = settings.get("initrd") or (in_options[1] if in_options else "")
    linux = settings.get("linux") or settings.get("kernel")
    files = tuple(part for part in initrd.split(",") if part)
    return BootEntry(settings.get("title") or name, linux, files, one_line(options))


def _pi_settings(text: str) -> dict[str, str]:
    """Settings outside of filters such as ``[pi4]``; ``[all]`` ends them. ``initramfs`` is followed by a space."""
    found: dict[str, str] = {}
    for_all = True
    for line in (line.strip() for line in text.split("\n")):
        if line.startswith("["):
            for_all = line.lower() == "[all]"
        elif for_all and line and not line.startswith("#"):
            name, equals, value = line.partition(" " if line.startswith("initramfs ") else "=")
            if equals:
                found[name.strip()] = value.strip()
    return found
