"""``kernel-cmdline``: the words that the boot loader gives to the kernel."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from .problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..shared_images import SharedImage
    from .plan import Check


def check_kernel_cmdline(check: Check, shared: SharedImage) -> Iterator[Problem]:
    """The problems of section ``kernel-cmdline``."""
    cmdline = shared.image.kernel_cmdline
    words = cmdline.split()
    for wanted in check.texts("contains"):
        if not any(fnmatchcase(word, wanted) for word in words):
            yield Problem("contains", wanted, cmdline or "empty")
    for unwanted in check.texts("not-contains"):
        for word in words:
            if fnmatchcase(word, unwanted):
                yield Problem("not-contains", f"no {unwanted}", word)
