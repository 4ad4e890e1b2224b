"""Why a command of an image could not be run, in words: the kernel's errno says little, the image's files more."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

from ..contents.architecture import elf_machine

if TYPE_CHECKING:
    from ..image_path import ImagePath
    from .command import Outcome

_HEAD = 4096
_PT_INTERP = 3
_MOST_HEADERS = 64
_QEMU = (
    "to run it here install packages qemu-user-static and binfmt-support, which register an interpreter "
    "with flag F (see /proc/sys/fs/binfmt_misc)"
)
_READ_FILES = "or look at the files without running anything: image / 'etc/os-release'"


def why_not_run(root: ImagePath, folder: str, outcome: Outcome) -> tuple[str, str]:
    """The reason, and what to do.

    :param folder: where it was to run
    :param outcome: of a command that was not run
    """
    number, stage = outcome.failed["errno"], outcome.failed["failed"]
    if stage == f"enter {folder}":
        return f"it was not run: {stage}: {os.strerror(number)}", "give as cwd= a folder that user= may enter"
    if stage != "execute":
        return _why_not_confined(stage, number)
    tried = [root / path for path in outcome.failed["tried"]]
    path = root / outcome.failed["path"]
    if number == errno.ENOENT:
        found = next((path for path in tried if path.exists()), None)
        return _why_no_interpreter(found) if found else _why_not_found(tried)
    if number == errno.ENOEXEC:
        return _why_no_program(path)
    if number == errno.EACCES:
        return f"{path} is not executable, by its mode or because it is no file", "see image.run([...], user=...) too"
    return f"{path} cannot be executed: {os.strerror(number)}", "see the kernel log (dmesg)"


def _why_not_confined(stage: str, number: int) -> tuple[str, str]:
    reason = f"it could not be confined, so it was not run: {stage}: {os.strerror(number)}"
    if number == errno.ENOSYS:
        return reason, f"use Linux 5.12 or newer, {_READ_FILES}"
    if number in (errno.EPERM, errno.EINVAL, errno.ENOSPC):
        allow = "let this kernel or container make user, mount, pid and network namespaces"
        return reason, f"{allow} (sysctl user.max_user_namespaces), {_READ_FILES}"
    return reason, "see the kernel log (dmesg)"


def _why_not_found(tried: list[ImagePath]) -> tuple[str, str]:
    if len(tried) == 1:
        return f"the image has no {tried[0]}", "give the full path of a program that is in the image"
    folders = ", ".join(str(path.parent) for path in tried)
    return f"the image has it in none of the folders {folders}", "give its full path"


def _why_no_interpreter(path: ImagePath) -> tuple[str, str]:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    wanted = _script_interpreter(head) or _elf_interpreter(head)
    if wanted:
        return f"{path} needs {wanted}, which the image does not have", "install what has it into the image"
    machine = elf_machine(path)
    return (
        f"{path} is there, and its interpreter is not" + (f" (a program for {machine})" if machine else ""),
        "where binfmt_misc names qemu as the interpreter, register it with flag F, so that the image need not have it",
    )


def _why_no_program(path: ImagePath) -> tuple[str, str]:
    machine, here = elf_machine(path), os.uname().machine
    if machine is not None:
        return f"{path} is a program for {machine}, and this machine is {here}", f"{_QEMU}, {_READ_FILES}"
    return f"{path} is neither a program for {here} nor a script with '#!'", "run it by its interpreter: ['/bin/sh', …]"


def _script_interpreter(head: bytes) -> str | None:
    if not head.startswith(b"#!"):
        return None
    words = head[2:].split(b"\n", 1)[0].split()
    return os.fsdecode(words[0]) if words else None


def _elf_interpreter(head: bytes) -> str | None:
    """What PT_INTERP of an ELF file names (ELF specification, program header), where it is near the file's start."""
    if len(head) < 64 or not head.startswith(b"\x7fELF"):
        return None
    wide, order = head[4] == 2, ">" if head[5] == 2 else "<"
    (table,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)
    size, count = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
    for number in range(min(count, _MOST_HEADERS)):
        entry = head[table + number * size :][:size]
        if len(entry) < (56 if wide else 32):
            return None
        (kind,) = struct.unpack_from(f"{order}I", entry)
        if kind == _PT_INTERP:
            (start,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", entry, 8 if wide else 4)
            (length,) = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", entry, 32 if wide else 16)
            return os.fsdecode(head[start : start + length].rstrip(b"\0")) or None
    return None
