"""``free-space``: what the file system has left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .problem import Problem
from .values import parse_size, show_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..shared_images import SharedImage
    from .plan import Check


def check_free_space(check: Check, shared: SharedImage) -> Iterator[Problem]:
    """The problems of section ``free-space``. What only root may use counts as used, as df has it."""
    status = os.statvfs(shared.image.root)
    free, total = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    found = f"{show_size(free)} of {show_size(total)}"
    if "min" in check.expect and free < (least := parse_size(check.expect["min"])):
        yield Problem("min", f"at least {show_size(least)}", found)
    if "max" in check.expect and free > (most := parse_size(check.expect["max"])):
        yield Problem("max", f"at most {show_size(most)}", found)
    if "min-percent" in check.expect:
        percent = 100 * free / total if total else 0.0
        if percent < check.expect["min-percent"]:
            yield Problem("min-percent", f"at least {check.text('min-percent')} %", f"{percent:.1f} % ({found})")
    if "min-inodes" in check.expect and status.f_favail < check.expect["min-inodes"]:
        yield Problem("min-inodes", f"at least {check.text('min-inodes')}", str(status.f_favail))
