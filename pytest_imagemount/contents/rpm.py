"""rpm's databases. They are read here and not by rpm: it would write locks, and its version may not know the format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ImageMountError
from . import rpm_bdb, rpm_ndb, rpm_sqlite
from .package import Package
from .reading import invalid
from .rpm_header import RpmHeader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..image_path import ImagePath

_FOLDERS = ("usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm")
_FORMATS: dict[str, Callable[[ImagePath], Iterator[bytes]]] = {
    "rpmdb.sqlite": rpm_sqlite.read_headers,
    "Packages.db": rpm_ndb.read_headers,
    "Packages": rpm_bdb.read_headers,
}
"""Each reader gives the header of each package, by number; ValueError says what is wrong with the database."""

DATABASES = tuple(f"{folder}/{name}" for folder in _FOLDERS for name in _FORMATS)


def read_installed(root: ImagePath) -> list[Package] | None:
    """The packages; None where rpm has no database here.

    :raises FactsInvalid: the database is corrupt
    """
    for place in DATABASES:
        path = root / place
        if path.is_file():
            return _read(path)
    return None


def native_architecture(packages: Sequence[Package]) -> str | None:
    """That of the C library, or of rpm."""
    return next((package.arch for package in packages if package.name in ("glibc", "rpm")), None)


def _read(path: ImagePath) -> list[Package]:
    try:
        return [_package(number, blob) for number, blob in enumerate(_FORMATS[path.name](path), start=1)]
    except ImageMountError:  # some are ValueErrors too, and say more
        raise
    except ValueError as error:
        hint = "the database is corrupt; `rpm --rebuilddb` mends what can be mended"
        raise invalid(path, str(error), hint) from None


def _package(number: int, blob: bytes) -> Package:
    try:
        header = RpmHeader(blob)
        files = header.files()
    except ValueError as error:
        raise ValueError(f"the header of package number {number} {error}") from None
    evr = f"{header.version}-{header.release}"
    version = evr if header.epoch is None else f"{header.epoch}:{evr}"
    return Package(header.name, version, header.arch, "rpm", files)
