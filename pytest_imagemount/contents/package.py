"""One installed package, and the mapping of all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cmp_to_key

from .versions import compare


@dataclass(frozen=True, slots=True)
class Package:
    """An installed package.

    :param version: with epoch and release, as the manager writes it: ``1:9.2p1-2+deb12u2``
    :param arch: as the manager calls it: ``amd64``, ``x86_64``, ``all``, ``noarch``; empty where it is not recorded
    :param manager: ``dpkg``, ``rpm``, ``apk`` or ``pacman``
    """

    name: str
    version: str
    arch: str
    manager: str
    _read_files: Callable[[], tuple[str, ...]] = field(repr=False, compare=False)

    def files(self) -> tuple[str, ...]:
        """The paths that the package owns, absolute in the image, in the order of its database.

        As the package has them: a file that dpkg diverts is here by the name that it would have. dpkg and rpm count
        folders in, apk and pacman only where a package has them as such.

        :raises FactsMissing: the database does not have them
        """
        return self._read_files()

    def satisfies(self, constraint: str) -> bool:
        """Whether the version is as ``constraint`` says, by the rules of the manager: ``">= 1.2, < 2"``."""
        from .versions import satisfies

        return satisfies(self.manager, self.version, constraint)


class Packages(Mapping[str, Package]):
    """The installed packages, by name.

    Where a name is installed more than once, the keys are ``name:arch``, or ``name:arch=version`` where that is not
    enough (kernels of rpm systems). Looking up the bare name then gives one of them: that of the system's own
    architecture, and of those the newest. ``name:arch`` is found in any case.

    :param native: the architecture of the system, as the package manager calls it; None where it is not known
    """

    def __init__(self, packages: Iterable[Package], native: str | None = None) -> None:
        self._keys: dict[str, Package] = {}
        self._found_by: dict[str, Package] = {}
        by_name: defaultdict[str, list[Package]] = defaultdict(list)
        for package in packages:
            by_name[package.name].append(package)
        for name, group in sorted(by_name.items()):
            group.sort(key=lambda package: package.manager)  # versions are compared within one manager
            group.sort(key=cmp_to_key(_by_age))
            group.sort(key=lambda package: package.arch == native)
            for package in group:
                key = _key(package, group)
                self._keys[key] = package
                for other in (name, f"{name}:{package.arch}", key):
                    self._found_by[other] = package

    def __getitem__(self, name: str) -> Package:
        return self._found_by[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<{len(self)} packages>"


def _by_age(a: Package, b: Package) -> int:
    return compare(a.manager, a.version, b.version) if a.manager == b.manager else 0


def _key(package: Package, group: list[Package]) -> str:
    if len(group) == 1:
        return package.name
    with_arch = f"{package.name}:{package.arch}"
    same_arch = sum(other.arch == package.arch for other in group)
    return with_arch if same_arch == 1 else f"{with_arch}={package.version}"
