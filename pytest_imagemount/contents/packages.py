"""The packages of an image, of every package manager that has a database in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import apk, dpkg, pacman, rpm
from .package import Package, Packages
from .reading import missing

if TYPE_CHECKING:
    from ..image_path import ImagePath

_MANAGERS = (dpkg, rpm, apk, pacman)


def read_packages(root: ImagePath) -> Packages:
    """The installed packages.

    :raises FactsMissing: there is no database of a package manager
    :raises FactsInvalid: a database is corrupt
    """
    found: list[Package] = []
    any_database = False
    native: str | None = None
    for manager in _MANAGERS:
        packages = manager.read_installed(root)
        if packages is not None:
            any_database = True
            found += packages
            native = native or manager.native_architecture(packages)
    if not any_database:
        looked = [f"/{path}" for manager in _MANAGERS for path in manager.DATABASES]
        hint = "the image may have no package manager; or mount the partition that holds its database (often /var)"
        raise missing(root, "package database", looked, hint)
    return Packages(found, native)
