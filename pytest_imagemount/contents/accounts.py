"""Users and groups, by the image's own passwd(5), shadow(5) and group(5).

``/usr/lib/passwd`` and ``/usr/lib/group`` (nss-altfiles, as on ostree systems) are read after those of ``/etc``. Users
that a program makes up at run time (systemd's userdb and homed, NIS, LDAP) and those that sysusers.d would add at the
next boot are not in the image yet and not here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from .reading import missing, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..image_path import ImagePath

PasswordState = Literal["locked", "none", "set", "empty", "unknown"]

_PASSWD = ("etc/passwd", "usr/lib/passwd")
_GROUP = ("etc/group", "usr/lib/group")
_SHADOW = ("etc/shadow", "usr/lib/shadow")
_HINT = "mount the partition that holds /etc; `imagemount inspect` lists the partitions"

# crypt(5): "$id$…", the 13 characters of DES, and the 20 and more of BSDi's "_…" and bigcrypt.
_HASH = re.compile(r"\$[^$]+\$.+|_?[./A-Za-z0-9]{13,}")


@dataclass(frozen=True, slots=True)
class User:
    """An account.

    :param password: ``set``: a password lets in. ``empty``: none is asked for. ``locked``: a ``!`` stands before what
        may be a password. ``none``: ``*`` or the like, so that no password lets in. ``unknown``: there is no entry in
        the image's shadow file
    """

    name: str
    uid: int
    gid: int
    gecos: str
    home: str
    shell: str
    password: PasswordState


@dataclass(frozen=True, slots=True)
class Group:
    """A group; ``members`` are those whom the group file names, not those whose primary group it is."""

    name: str
    gid: int
    members: tuple[str, ...]


def read_users(root: ImagePath) -> Mapping[str, User]:
    """The users by name, in the order of the files; of two with one name the first, as for getpwnam(3).

    Lines that the C library would not take are left out.

    :raises FactsMissing: there is no passwd file
    """
    shadow = {fields[0]: fields[1] for fields in _lines(root, _SHADOW) or () if len(fields) >= 2}
    lines = _lines(root, _PASSWD)
    if lines is None:
        raise missing(root, "user database", [f"/{path}" for path in _PASSWD], _HINT)
    users: dict[str, User] = {}
    for fields in lines:
        if len(fields) == 7 and fields[0] not in users and _is_number(fields[2]) and _is_number(fields[3]):
            name, password, uid, gid, gecos, home, shell = fields
            if password == "x":
                state = password_state(shadow[name]) if name in shadow else "unknown"
            else:
                state = password_state(password)
            users[name] = User(name, int(uid), int(gid), gecos, home, shell, state)
    return MappingProxyType(users)


def read_groups(root: ImagePath) -> Mapping[str, Group]:
    """The groups by name, in the order of the files; of two with one name the first.

    :raises FactsMissing: there is no group file
    """
    lines = _lines(root, _GROUP)
    if lines is None:
        raise missing(root, "group database", [f"/{path}" for path in _GROUP], _HINT)
    groups: dict[str, Group] = {}
    for fields in lines:
        if len(fields) == 4 and fields[0] not in groups and _is_number(fields[2]):
            members = tuple(member.strip() for member in fields[3].split(",") if member.strip())
            groups[fields[0]] = Group(fields[0], int(fields[2]), members)
    return MappingProxyType(groups)


def password_state(field: str) -> PasswordState:
    """What the password field of passwd(5) or shadow(5) says."""
    if not field:
        return "empty"
    if field.startswith("!"):
        return "locked"
    return "set" if _HASH.fullmatch(field) else "none"


def _lines(root: ImagePath, paths: tuple[str, ...]) -> Iterator[list[str]] | None:
    """The fields of each line of all ``paths``; None where none of them is there."""
    texts = [text for path in paths if (text := read_text(root / path)) is not None]
    if not texts:
        return None
    lines = (line.lstrip() for text in texts for line in text.split("\n"))
    # "+" and "-" start entries that NIS fills in.
    return (line.split(":") for line in lines if line and line[0] not in "#+-")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10
