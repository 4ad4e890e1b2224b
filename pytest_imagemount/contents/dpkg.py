"""dpkg's database: ``status``, or a file a package in ``status.d`` as in distroless container images."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from .package import Package
from .reading import invalid, missing, read_names, regular_files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..image_path import ImagePath

DATABASES = ("var/lib/dpkg/status", "var/lib/dpkg/status.d")

_FOLDER = "var/lib/dpkg"
_FIELD = re.compile(r"^(Package|Status|Version|Architecture):[ \t]*(.*)", re.IGNORECASE | re.MULTILINE)
_CORRUPT = "the database is corrupt"


def read_installed(root: ImagePath) -> list[Package] | None:
    """The packages whose state is ``installed``, held ones too; None where dpkg has no database here.

    :raises FactsInvalid: a package has no name or no version
    """
    folder = root / _FOLDER
    status = read_names(folder / "status")
    singles = [path for path in regular_files(folder / "status.d") if path.suffix != ".md5sums"]
    if status is None and not singles:
        return None
    found: dict[tuple[str, str], Package] = {}
    for path, fields in _stanzas(folder, status or ""):
        # dpkg says "want, flag, state": "install ok installed", "deinstall ok config-files".
        name, arch = _required(path, fields, "package"), fields.get("architecture", "")
        found.pop((name, arch), None)
        if fields.get("status", "").split()[2:] == ["installed"]:
            version = _required(path, fields, "version")
            found[name, arch] = Package(name, version, arch, "dpkg", partial(_listed_files, root, name, arch))
    for path in singles:
        for fields in _fields(read_names(path) or ""):
            name, version = _required(path, fields, "package"), _required(path, fields, "version")
            arch, read_files = fields.get("architecture", ""), partial(_checksummed_files, root, path.name, name)
            found[name, arch] = Package(name, version, arch, "dpkg", read_files)
    return list(found.values())


def native_architecture(packages: Sequence[Package]) -> str | None:
    """That of dpkg itself."""
    return next((package.arch for package in packages if package.name == "dpkg"), None)


def _stanzas(folder: ImagePath, status: str) -> Iterator[tuple[ImagePath, dict[str, str]]]:
    """The packages of the status file, and what an interrupted dpkg left to be merged into it."""
    for fields in _fields(status):
        yield folder / "status", fields
    for path in regular_files(folder / "updates"):
        if path.name.isdigit():
            for fields in _fields(read_names(path) or ""):
                yield path, fields


def _fields(text: str) -> Iterator[dict[str, str]]:
    for stanza in re.split(r"\n[ \t\r]*\n", text):
        fields = {match[1].lower(): match[2].rstrip(" \t\r") for match in _FIELD.finditer(stanza)}
        if fields:
            yield fields


def _required(path: ImagePath, fields: dict[str, str], name: str) -> str:
    if not fields.get(name):
        raise invalid(path, f"package {fields.get('package', '')!r} has no field {name.title()!r}", _CORRUPT)
    return fields[name]


def _listed_files(root: ImagePath, name: str, arch: str) -> tuple[str, ...]:
    places = [f"{_FOLDER}/info/{name}:{arch}.list", f"{_FOLDER}/info/{name}.list"]
    for place in places:
        text = read_names(root / place)
        if text is not None:
            return tuple(line for line in text.split("\n") if line not in ("", "/."))
    raise missing(root, f"list of the files of package {name}", [f"/{place}" for place in places], _CORRUPT)


def _checksummed_files(root: ImagePath, file_name: str, name: str) -> tuple[str, ...]:
    place = f"{_FOLDER}/status.d/{file_name}.md5sums"
    text = read_names(root / place)
    if text is None:
        raise missing(root, f"list of the files of package {name}", [f"/{place}"], "the image does not carry one")
    paths = (line.partition("  ")[2] for line in text.split("\n"))
    return tuple(f"/{path.lstrip('/')}" for path in paths if path)
