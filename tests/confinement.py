"""A guard for tests that write to paths such as ``/etc/hostname`` of an image, perhaps as root.

With a resolver that does not confine they would write to this machine. The guard only looks, and fails first.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pytest_imagemount.image_root import LocalOpener

if TYPE_CHECKING:
    from pathlib import Path


def assert_confined(folder: Path) -> None:
    """Fail unless absolute paths, ``..``, links and magic links stay below the root that an opener was given."""
    canary = folder / "canary"
    canary.touch()
    root = folder / "root"
    root.mkdir()
    (root / "absolute").symlink_to(canary)
    (root / "relative").symlink_to("../canary")
    (root / "magic").symlink_to(f"/proc/self/root{canary}")
    opener = LocalOpener(root)
    try:
        for path in (str(canary), "../canary", "/../canary", "/absolute", "/relative", "/magic"):
            try:
                os.close(opener.open(path, os.O_PATH))
            except FileNotFoundError:
                continue
            raise AssertionError(f"the resolver leads out of its root by {path}; nothing else is run")
    finally:
        opener.close()
