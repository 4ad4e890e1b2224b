"""apk's database: one file, a line a field, with the files of each package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .owned_paths import OwnedPaths
from .package import Package
from .reading import invalid, read_names

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..image_path import ImagePath

_CORRUPT = "the database is corrupt"

DATABASES = ("lib/apk/db/installed", "usr/lib/apk/db/installed")


def read_installed(root: ImagePath) -> list[Package] | None:
    """The packages; None where apk has no database here.

    :raises FactsInvalid: a package has no name or no version
    """
    for place in DATABASES:
        text = read_names(root / place)
        if text is not None:
            return [_package(root / place, stanza) for stanza in text.split("\n\n") if stanza.strip()]
    return None


def native_architecture(packages: Sequence[Package]) -> str | None:
    """That of any package which is made for one."""
    return next((package.arch for package in packages if package.arch != "noarch"), None)


def _package(database: ImagePath, stanza: str) -> Package:
    fields: dict[str, str] = {}
    folders, files, places = ["/"], list[str](), list[int]()
    for line in stanza.split("\n"):
        name, colon, value = line.partition(":")
        if not colon:
            continue
        if name == "F":
            folders.append(f"/{value}/" if value else "/")
        elif name == "R":
            files.append(value)
            places.append(len(folders) - 1)
        else:
            fields[name] = value
    if not fields.get("P") or not fields.get("V"):
        reason = f"package {fields.get('P', '')!r} has no name (P:) or no version (V:)"
        raise invalid(database, reason, _CORRUPT)
    try:
        paths = OwnedPaths(folders, files, places)
    except ValueError as error:
        raise invalid(database, f"package {fields['P']!r} {error}", _CORRUPT) from None
    return Package(fields["P"], fields["V"], fields.get("A", ""), "apk", paths)
