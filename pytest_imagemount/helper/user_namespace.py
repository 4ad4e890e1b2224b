"""A user namespace in which a command's root is nobody on this machine."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import namespace_calls as calls

if TYPE_CHECKING:
    from typing import NoReturn


@dataclass(frozen=True, slots=True)
class Mapping:
    """Ids from 0 on inside are those from ``first`` on outside, ``count`` of them."""

    first: int
    count: int


SHIFTED = Mapping(1 << 30, 1 << 29)
"""To ids that no user of a machine has: its users are below, and -1 and -2 are above."""
IDENTITY = Mapping(0, (1 << 32) - 1)
"""For file systems whose owners cannot be mapped."""


def make_user_namespace(mapping: Mapping) -> int:
    """A descriptor of a new user namespace, in which no further one can be made.

    Only a process inside can make one, and it cannot come back; so a child makes it, and goes.

    :raises OSError: as the kernel says
    """
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    child = os.fork()
    if not child:
        os.close(from_child)
        os.close(to_child)
        _be_first_inside(from_parent, to_parent)
    os.close(from_parent)
    os.close(to_parent)
    try:
        _expect_word(from_child)
        process = Path(f"/proc/{child}")
        for name in ("uid_map", "gid_map"):
            (process / name).write_text(f"0 {mapping.first} {mapping.count}\n")
        descriptor = os.open(process / "ns/user", os.O_RDONLY | os.O_CLOEXEC)
        os.write(to_child, b"\0")
        _expect_word(from_child)
        return descriptor
    finally:
        os.close(to_child)
        os.close(from_child)
        os.waitpid(child, 0)


def _be_first_inside(from_parent: int, to_parent: int) -> NoReturn:
    """Make the namespace, wait for its mapping, forbid further ones. An errno, one byte, goes to the parent; 0 is none.

    Inside one more namespace a command would have capabilities: over that one only, but enough to mount.
    """
    try:
        calls.unshare(calls.CLONE_NEWUSER)
        os.write(to_parent, b"\0")
        os.read(from_parent, 1)
        # A /proc/sys that is read-only, as in some containers: then it can nest them, as every user there.
        with suppress(OSError):
            Path("/proc/sys/user/max_user_namespaces").write_text("0\n")
        os.write(to_parent, b"\0")
    except OSError as error:
        os.write(to_parent, bytes([error.errno or 1]))
    finally:
        os._exit(0)


def _expect_word(pipe: int) -> None:
    word = os.read(pipe, 1)
    if word != b"\0":
        number = word[0] if word else 1
        raise OSError(number, os.strerror(number))
