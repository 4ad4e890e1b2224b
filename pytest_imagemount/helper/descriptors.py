"""What the helper takes from the test process: descriptors, judged by what is open, never by a path.

The helper runs as root, the caller perhaps not. A descriptor shows what the caller was allowed to open.
"""

from __future__ import annotations

import fcntl
import os
import reprlib
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..engine.target import Target
from ..errors import ImageUnreadable, RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self


@dataclass(frozen=True, slots=True)
class Carried:
    """The descriptors of a request by what they are for; ``members`` and ``files`` by their names. Not owned."""

    image: int
    mountpoint: int | None = None
    key: int | None = None
    members: tuple[tuple[str, int], ...] = ()
    files: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, roles: Sequence[str], descriptors: Sequence[int]) -> Self:
        """Sort ``descriptors``, for each of which ``roles`` has a word.

        :raises RequestInvalid: more or fewer of them than words, an unknown word, the image not first or a second one
        """
        found: dict[str, int] = {}
        named: dict[str, list[tuple[str, int]]] = {"member": [], "file": []}
        for role, descriptor in zip(roles, descriptors, strict=False):
            kind, _, name = role.partition(":")
            if kind in named and name:
                named[kind].append((name, descriptor))
            elif role in ("image", "mountpoint", "key") and role not in found:
                found[role] = descriptor
        if len(roles) != len(descriptors) or "image" not in found or roles[0] != "image":
            known = False
        else:
            known = len(found) + sum(map(len, named.values())) == len(roles)
        if not known:
            value = f"{', '.join(roles)} with {len(descriptors)} descriptors"
            reason = "one word a descriptor: image, mountpoint, key, member:NAME or file:PATH, and image first"
            raise RequestInvalid(argument="carries", value=reprlib.repr(value), reason=reason)
        return cls(**found, members=tuple(named["member"]), files=tuple(named["file"]))


def require_image(fd: int, name: str, mode: str) -> None:
    """See that ``fd`` allows what ``mode`` asks for; ``name`` is the image's, for messages.

    A descriptor opened with O_PATH shows no right to read: root would open by it what the caller may not.

    :raises RequestInvalid: it is not open for reading, or for mode ``rw`` not for reading and writing
    :raises ImageUnreadable: the caller may read it, and root may not
    """
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    access = flags & os.O_ACCMODE
    if flags & os.O_PATH or access == os.O_WRONLY:
        raise RequestInvalid(argument="image", value=repr(name), reason="its descriptor is not open for reading")
    if mode == "rw" and access != os.O_RDWR:
        reason = "its descriptor is open for reading only, and mode 'rw' writes to it"
        raise RequestInvalid(argument="image", value=repr(name), reason=reason)
    try:
        os.fstat(fd)
    except PermissionError:
        reason = "it is on a FUSE file system that shows its files to one user only, and root mounts the image"
        hint = "mount that file system with -o allow_root (user_allow_other in /etc/fuse.conf), or copy the image"
        raise ImageUnreadable(image=name, mode=mode, reason=reason, hint=hint) from None


def require_different(images: Sequence[tuple[str, int]]) -> None:
    """See that no two of ``images``, each a name and a descriptor, are the same file.

    :raises RequestInvalid: two are
    """
    seen: dict[tuple[int, int], str] = {}
    for name, descriptor in images:
        status = os.fstat(descriptor)
        other = seen.setdefault((status.st_dev, status.st_ino), name)
        if other is not name:
            reason = f"it is the same file as {other!r}; give each disk once"
            raise RequestInvalid(argument="image", value=repr(name), reason=reason)


def require_mountpoint(fd: int, uid: int) -> Target:
    """The folder that is open at ``fd``, to be mounted at for user ``uid``.

    :raises RequestInvalid: no folder, not empty, or of another user, who could be made to see other files there
    """
    target = Target.held(fd)
    status = os.fstat(fd)
    reason = ""
    if not stat.S_ISDIR(status.st_mode) or fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
        reason = "its descriptor is not of a folder that is open for reading"
    elif uid not in (0, status.st_uid):
        reason = "the folder belongs to another user"
    elif os.listdir(fd):
        reason = "the folder is not empty"
    if reason:
        raise RequestInvalid(argument="mountpoint", value=repr(str(target.path)), reason=reason)
    return target
