"""Files of an image for a user who is not root: the helper opens what the user's own rights do not reach.

Files inside an image belong to the image's users, root mostly, whose numbers mean nothing here. The user could read the
image, so all that is in it is the user's to see; the kernel does not know that, the helper does.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .helper.protocol import ChangeInside, OpenInside, XattrsInside
from .image_root import LocalOpener

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .client import Client
    from .confined import Change
    from .image_root import Opener

_PATHS_A_REQUEST = 1 << 13
"""Characters of several paths in one request: as JSON twelve bytes each at most, which fits in a message."""
_BITS = 0o7777  # what the kernel takes of a mode; the rest of a st_mode it drops


def opener_for(client: Client, mount: int, root: Path) -> Opener:
    """What opens the files of the image that ``client``'s helper has mounted at ``root`` as number ``mount``.

    :raises CapabilityMissing: the kernel or the container has no openat2
    """
    local = LocalOpener(root)
    return local if os.geteuid() == 0 else RemoteOpener(local, client, mount)


class RemoteOpener:
    """Opens with the rights of this process, and asks the helper for what they do not allow.

    What the helper makes belongs to root inside the image, as it would for tests that run as root.
    """

    sees_all_xattrs = False

    def __init__(self, local: LocalOpener, client: Client, mount: int) -> None:
        self._local, self._client, self._mount = local, client, mount

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        """See :meth:`.image_root.Opener.open`."""
        try:
            return self._local.open(path, flags, mode)
        except PermissionError:
            return self._client.ask_for_file(OpenInside(self._mount, path, flags, mode & _BITS & ~_umask()))

    def change(self, change: Change) -> None:
        """See :meth:`.image_root.Opener.change`."""
        try:
            self._local.change(change)
        except PermissionError:
            mode = change.mode & _BITS & ~(_umask() if change.call == "mkdir" else 0)
            self._client.ask(ChangeInside(self._mount, change.call, change.path, change.other, mode))

    def xattrs(self, paths: Sequence[str], *, follow: bool) -> Iterator[dict[str, bytes]]:
        """See :meth:`.image_root.Opener.xattrs`. Always by the helper: the kernel hides ``trusted.*`` from others."""
        done = 0
        while done < len(paths):
            request = XattrsInside(self._mount, _some(paths[done:]), follow)
            with os.fdopen(self._client.ask_for_file(request), "rb") as reply:
                lines = reply.readlines()
            for line in lines:
                yield _decoded(json.loads(line))
            done += len(lines)

    def close(self) -> None:
        """See :meth:`.image_root.Opener.close`."""
        self._local.close()


def _some(paths: Sequence[str]) -> tuple[str, ...]:
    """As many of the paths, at least one, as go into one request."""
    size = 0
    for number, path in enumerate(paths):
        size += len(path)
        if number and size > _PATHS_A_REQUEST:
            return tuple(paths[:number])
    return tuple(paths)


def _decoded(answer: dict[str, Any]) -> dict[str, bytes]:
    if "errno" in answer:
        raise OSError(answer["errno"], answer["reason"])
    return {name: base64.b64decode(value) for name, value in answer["xattrs"].items()}


def _umask() -> int:
    """Of this process. os.umask would set it too, for all threads."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022  # hidden procfs
