"""The machine that the programs of an image are made for, from an ELF header or the package manager's configuration."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .reading import entries, first_text

if TYPE_CHECKING:
    from ..image_path import ImagePath

_PROGRAMS = (
    "usr/bin/sh",
    "bin/sh",
    "usr/lib/systemd/systemd",
    "sbin/init",
    "usr/sbin/init",
    "bin/busybox",
    "usr/bin/bash",
    "usr/bin/env",
)
_LIBRARY_FOLDERS = ("lib64", "lib", "usr/lib64", "usr/lib")
_CONFIGURED = ("etc/apk/arch", "var/lib/dpkg/arch")

_ELF_MAGIC = b"\x7fELF"
_HEADER_BYTES = 20

# e_machine of the ELF specification, with what uname(2) calls it: 32 and 64 bit, little and big endian.
_MACHINES: dict[int, tuple[str, str, str, str]] = {
    2: ("sparc", "sparc", "sparc64", "sparc64"),
    3: ("i386", "i386", "i386", "i386"),
    4: ("m68k", "m68k", "m68k", "m68k"),
    8: ("mipsel", "mips", "mips64el", "mips64"),
    15: ("hppa", "hppa", "hppa64", "hppa64"),
    20: ("ppcle", "ppc", "ppcle", "ppc"),
    21: ("ppc64le", "ppc64", "ppc64le", "ppc64"),
    22: ("s390", "s390", "s390x", "s390x"),
    40: ("arm", "armeb", "arm", "armeb"),
    42: ("sh4", "sh4eb", "sh4", "sh4eb"),
    43: ("sparc64", "sparc64", "sparc64", "sparc64"),
    50: ("ia64", "ia64", "ia64", "ia64"),
    62: ("x32", "x32", "x86_64", "x86_64"),
    183: ("aarch64_ilp32", "aarch64_be", "aarch64", "aarch64_be"),
    243: ("riscv32", "riscv32", "riscv64", "riscv64"),
    258: ("loongarch32", "loongarch32", "loongarch64", "loongarch64"),
    0x9026: ("alpha", "alpha", "alpha", "alpha"),
}

_PACKAGE_NAMES = {
    "amd64": "x86_64",
    "arm64": "aarch64",
    "armel": "arm",
    "armhf": "arm",
    "armv7": "arm",
    "i686": "i386",
    "mips64el": "mips64el",
    "powerpc": "ppc",
    "ppc64el": "ppc64le",
    "x86": "i386",
}
"""How dpkg and apk call a machine, where that is not the name here."""


def read_architecture(root: ImagePath) -> str | None:
    """``x86_64``, ``aarch64``, ``arm``, ``riscv64``, …, or None where no file says it."""
    for program in _PROGRAMS:
        if machine := elf_machine(root / program):
            return machine
    for folder in _LIBRARY_FOLDERS:
        for entry in entries(root / folder):
            is_library = entry.name.startswith(("libc.so.", "ld-linux", "ld-musl-"))
            if is_library and (machine := elf_machine(root / folder / entry.name)):
                return machine
    configured = first_text(root, _CONFIGURED, 4096)
    if configured is None:
        return None
    name = configured[1].split()[0] if configured[1].split() else ""
    return _PACKAGE_NAMES.get(name, name) or None


def elf_machine(path: ImagePath) -> str | None:
    """The machine of an ELF file; None where ``path`` is none, or is for a machine that is not known here."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    if len(header) < _HEADER_BYTES or not header.startswith(_ELF_MAGIC):
        return None
    wide, big_endian = header[4] == 2, header[5] == 2
    (machine,) = struct.unpack_from(">H" if big_endian else "<H", header, 18)
    names = _MACHINES.get(machine)
    return names[2 * wide + big_endian] if names else None
