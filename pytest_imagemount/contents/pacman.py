"""pacman's database: a folder a package, with ``desc`` and ``files``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .package import Package
from .reading import entries, invalid, missing, read_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..image_path import ImagePath

DATABASES = ("var/lib/pacman/local",)


def read_installed(root: ImagePath) -> list[Package] | None:
    """The packages; None where pacman has no database here.

    :raises FactsInvalid: a package has no name or no version
    """
    folder = root / DATABASES[0]
    if not folder.is_dir():
        return None
    return [_package(folder / entry.name) for entry in entries(folder) if entry.is_folder]


def native_architecture(packages: Sequence[Package]) -> str | None:
    """That of any package which is made for one."""
    return next((package.arch for package in packages if package.arch != "any"), None)


def _package(folder: ImagePath) -> Package:
    fields = _sections(read_names(folder / "desc") or "")
    name, version, arch = ((fields.get(key) or [""])[0] for key in ("NAME", "VERSION", "ARCH"))
    if not name or not version:
        raise invalid(folder / "desc", "has no %NAME% or no %VERSION%", "the database is corrupt")
    return Package(name, version, arch, "pacman", partial(_files, folder, name))


def _files(folder: ImagePath, name: str) -> tuple[str, ...]:
    text = read_names(folder / "files")
    if text is None:
        raise missing(
            folder, f"list of the files of package {name}", [str(folder / "files")], "the database is corrupt"
        )
    return tuple(f"/{path}" for path in _sections(text).get("FILES", []))


def _sections(text: str) -> dict[str, list[str]]:
    """``%NAME%`` lines, each with the lines that follow it up to an empty one."""
    found: dict[str, list[str]] = {}
    for block in text.split("\n\n"):
        heading, *values = block.strip("\n").split("\n")
        if heading.startswith("%") and heading.endswith("%"):
            found[heading.strip("%")] = values
    return found
