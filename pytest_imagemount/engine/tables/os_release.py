"""Whether a mounted tree is that of an installed system: what :class:`~.auto.Wish` asks of each candidate."""

from __future__ import annotations

import os

from .. import syscalls

# As os-release(5) has them. The second is where the first, a link, leads to; it may be on another partition.
_PLACES = ("etc/os-release", "usr/lib/os-release")


def has_os_release(root: int) -> bool:
    """Whether the tree below the folder open at ``root`` has an ``etc/os-release``, be it a link that leads nowhere.

    No link on the way leads out of the tree.
    """
    for place in _PLACES:
        try:
            os.close(syscalls.openat2(root, place, os.O_PATH | os.O_NOFOLLOW))
        except OSError:
            continue
        return True
    return False
