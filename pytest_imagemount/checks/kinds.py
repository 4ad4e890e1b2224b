"""The kinds of checks: which function answers for which section of a check file."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..shared_images import SharedImage
    from .plan import Check
    from .problem import Problem

    Answer = Callable[[Check, SharedImage], Iterator[Problem]]

_MODULES = {
    "os": "operating_system",
    "files": "files",
    "packages": "packages",
    "users": "accounts",
    "groups": "accounts",
    "services": "services",
    "fstab": "fstab",
    "kernel-cmdline": "kernel_cmdline",
    "disk": "disk",
    "partitions": "disk",
    "free-space": "free_space",
    "rules": "rules",
}


def problems_of(check: Check, shared: SharedImage) -> list[Problem]:
    """What of ``check`` the image does not meet, in the order of the check file.

    :raises ImageMountError: the image cannot be mounted, or lacks what the check is to be told from
    :raises OSError: something in it cannot be read
    """
    module = import_module(f".{_MODULES[check.section]}", __package__)
    answer: Answer = getattr(module, f"check_{check.section.replace('-', '_')}")
    return list(answer(check, shared))
