"""``packages``: what is installed, by the package database of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..contents.versions import satisfies
from .problem import Problem, value_problems
from .values import similar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..shared_images import SharedImage
    from .plan import Check


def check_packages(check: Check, shared: SharedImage) -> Iterator[Problem]:
    """The problems of one entry of ``packages``."""
    packages = shared.image.packages
    package = packages.get(check.subject)
    if check.expect.get("state") == "absent":
        if package is not None:
            yield Problem("state", "absent", f"installed, version {package.version}")
        return
    if package is None:
        wanted = f"installed, {check.text('version')}" if "version" in check.expect else "installed"
        yield Problem("state", wanted, f"not installed{similar(check.subject, packages)}")
        return
    if "version" in check.expect and not satisfies(package.manager, package.version, check.text("version")):
        yield Problem("version", check.text("version"), package.version)
    yield from value_problems(check, {"arch": package.arch})
