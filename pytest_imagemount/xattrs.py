"""Extended attributes: read from a descriptor, and the well-known ones in the form that people write them."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

from .engine.text import printable
from .file_capabilities import capabilities_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CAPABILITIES = "security.capability"
SELINUX = "security.selinux"
_ACL_NAMES = {"system.posix_acl_access": "ACL", "system.posix_acl_default": "default ACL"}
_ABSENT = (errno.EOPNOTSUPP, errno.ENODATA)

# struct posix_acl_xattr_entry of the kernel's uapi/linux/posix_acl_xattr.h: tag, permissions, user or group.
_ACL_VERSION = (2).to_bytes(4, "little")
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_TAGS = {0x01: "user", 0x02: "user", 0x04: "group", 0x08: "group", 0x10: "mask", 0x20: "other"}
_ACL_WITH_NUMBER = (0x02, 0x08)
_LONGEST_SHOWN = 40


def read_xattrs(file: int | Path, *, most: int = 1 << 30) -> dict[str, bytes]:
    """Every extended attribute that this process may see, by name; none on a file system that has none.

    :param file: a descriptor, or the name of one that is only O_PATH (:func:`.confined.pinned`): the kernel reads no
        attributes from that, but does from its name below /proc/self/fd, also where it holds a symbolic link
    :param most: bytes of names and values; E2BIG beyond (XFS and btrfs take 64 KiB for each of thousands)
    :raises OSError: as the kernel says; EINVAL for capabilities that are not as they must be
    """
    found: dict[str, bytes] = {}
    size = 0
    try:
        names = os.listxattr(file)
    except OSError as error:
        if error.errno in _ABSENT:
            return {}
        raise
    for name in sorted(names):
        try:
            found[name] = os.getxattr(file, name)
        except OSError as error:
            if error.errno == errno.ENODATA:  # removed since
                continue
            raise OSError(error.errno, f"{error.strerror}, for extended attribute {name!r}") from None
        size += len(name) + len(found[name])
        if size > most:
            raise OSError(errno.E2BIG, f"More than {most} bytes of extended attributes")
    return found


def capabilities_of(xattrs: Mapping[str, bytes]) -> str:
    """As getcap prints them, ``cap_net_raw=ep``; empty where the file has none.

    :raises ValueError: the attribute is not as it must be
    """
    value = xattrs.get(CAPABILITIES)
    return "" if value is None else capabilities_text(value)


def selinux_context_of(xattrs: Mapping[str, bytes]) -> str | None:
    """``system_u:object_r:etc_t:s0``; None where the file has no label."""
    value = xattrs.get(SELINUX)
    return None if value is None else os.fsdecode(value.rstrip(b"\0"))


def acl_text(value: bytes) -> str:
    """A POSIX access control list in the short form of getfacl: ``user::rw-,user:1000:r--,group::r--,mask::r--,…``.

    :raises ValueError: it is not as the kernel writes it
    """
    if value[:4] != _ACL_VERSION or len(value) % _ACL_ENTRY.size != len(_ACL_VERSION):
        raise ValueError(f"{value[:24].hex()} is no access control list of version 2")
    return ",".join(_acl_entry(*entry) for entry in _ACL_ENTRY.iter_unpack(value[len(_ACL_VERSION) :]))


def described(name: str, value: bytes) -> tuple[str, str]:
    """What to call an attribute and its value in a message for people, both without control characters."""
    try:
        if name == CAPABILITIES:
            return "capabilities", capabilities_text(value)
        if name in _ACL_NAMES:
            return _ACL_NAMES[name], acl_text(value)
        if name == SELINUX:
            return "SELinux context", printable(os.fsdecode(value.rstrip(b"\0")))
    except ValueError:
        pass  # shown as it is
    shown = repr(value[:_LONGEST_SHOWN]) + ("…" if len(value) > _LONGEST_SHOWN else "")
    return f"xattr {printable(name)}", shown


def _acl_entry(tag: int, permissions: int, number: int) -> str:
    if tag not in _ACL_TAGS or permissions > 7:
        raise ValueError(f"{tag:#x} with permissions {permissions:#o} is no entry of an access control list")
    letters = "".join(letter if permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
    return f"{_ACL_TAGS[tag]}:{number if tag in _ACL_WITH_NUMBER else ''}:{letters}"
