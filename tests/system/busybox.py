"""A small system that can run by itself: busybox, linked statically (Debian package busybox-static)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount import Directory, File, Symlink
from pytest_imagemount.programs import find_program

if TYPE_CHECKING:
    from pytest_imagemount import MountedImage

_COMMANDS = (
    "cat chroot command dd echo env false grep hostname id kill ln ls mkdir mknod mount nc ps readlink realpath "
    "setsid sh sha256sum sleep sort stat su test touch tr true umount uname unshare wc yes"
)
EMPTY = ("proc", "dev", "tmp", "run", "sys")
"""Folders that a system has for others to be mounted on."""


def busybox_system(*folders: str) -> dict[str, str | bytes | File | Symlink | Directory]:
    """Content for image_factory; ``folders`` are empty ones. The test is skipped, or failed, where busybox is not."""
    return {
        "bin/busybox": File(busybox(), mode=0o755, uid=0, gid=0),
        **{f"bin/{name}": Symlink("busybox") for name in _COMMANDS.split()},
        **{name: Directory() for name in folders},
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:web:/var/www:/bin/sh\nodd line\n",
        "etc/group": "root:x:0:\nwww:x:33:\nlogs:x:44:www\n",
        "etc/hostname": "web01\n",
        "etc/os-release": "ID=busybox\nVERSION_ID=1\n",
        "etc/secret": File(b"only for root\n", mode=0o600, uid=0, gid=0),
        "var/www/page": File(b"<h1>", mode=0o640, uid=33, gid=33),
    }


def busybox() -> bytes:
    """The program."""
    path = find_program("busybox")
    content = Path(path).read_bytes() if path else b""
    # PT_INTERP names the dynamic loader, which would have to be in the image too.
    if not content or b"/ld-linux" in content[:4096] or b"/ld-musl" in content[:4096]:
        reason = "package busybox-static is not installed"
        if {"busybox", "all"} & set(os.environ.get("IMAGEMOUNT_REQUIRE", "").split(",")):
            pytest.fail(f"IMAGEMOUNT_REQUIRE names busybox, and {reason}", pytrace=False)
        pytest.skip(reason)
    return content


def shell(image: MountedImage, script: str, **options: object) -> str:
    """What a shell of the image prints; it must end well."""
    return image.run(["/bin/sh", "-c", script], check=True, **options).stdout  # type: ignore[arg-type]
