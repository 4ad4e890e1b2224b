"""``os``: what the image says about itself."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from .document import written
from .problem import Problem
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
    for key in check.expect:
        if key == "kernel":
            if not any(fnmatchcase(version, check.text(key)) for version in facts.kernels):
                yield Problem(key, check.text(key), show_list(facts.kernels))
        elif key == "fields":
            for name, value in check.expect[key].items():
                if facts.fields.get(name) != written(value):
                    yield Problem(name, written(value), facts.fields.get(name, "not set"))
        elif found[key] != check.text(key):
            yield Problem(key, check.text(key), found[key] or "not set")
