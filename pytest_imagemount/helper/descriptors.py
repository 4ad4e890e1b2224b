"""What the helper takes from the test process: descriptors, judged by what is open, never by a path.

The helper runs as root, the caller perhaps not. A descriptor shows what the caller was allowed to open.
"""

from __future__ import annotations

import fcntl
import os
import stat

from ..engine.target import Target
from ..errors import RequestInvalid


def require_image(fd: int, name: str, mode: str) -> None:
    """See that ``fd`` allows what ``mode`` asks for; ``name`` is the image's, for messages.

    A descriptor opened with O_PATH shows no right to read: root would open by it what the caller may not.

    :raises RequestInvalid: it is not open for reading, or for mode ``rw`` not for reading and writing
    """
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    access = flags & os.O_ACCMODE
    if flags & os.O_PATH or access == os.O_WRONLY:
        raise RequestInvalid(argument="image", value=repr(name), reason="its descriptor is not open for reading")
    if mode == "rw" and access != os.O_RDWR:
        reason = "its descriptor is open for reading only, and mode 'rw' writes to it"
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
