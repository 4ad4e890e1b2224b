"""``os``: what the image says about itself."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from .document import written
from .problem import Problem, value_problems
from .values import show_list

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..shared_images import SharedImage
    from .plan import Check


def check_os(check: Check, shared: SharedImage) -> Iterator[Problem]:
    """The problems of section ``os``."""
    facts = shared.image.os
    found = {
        "id": facts.id,
        "version": facts.version_id,
        "name": facts.name,
        "arch": facts.architecture,
        "hostname": facts.hostname,
        "timezone": facts.timezone,
        "locale": facts.locale,
        "machine-id": facts.machine_id,
    }
    yield from value_problems(check, found, nothing="not set")
    for wanted in check.texts("kernel"):
        if not any(fnmatchcase(version, wanted) for version in facts.kernels):
            yield Problem("kernel", wanted, show_list(facts.kernels))
    for name, value in check.expect.get("fields", {}).items():
        if facts.fields.get(name) != written(value):
            yield Problem(name, written(value), facts.fields.get(name, "not set"))
