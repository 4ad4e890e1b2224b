"""The services of an image: systemd's units, or the scripts of OpenRC or System V init where that is what it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from . import unit_names
from .init_scripts import read_openrc, read_sysv
from .reading import missing
from .service import Service
from .unit_folders import SEARCH_PATH, read_unit_folders
from .unit_presets import Presets
from .unit_states import NoSuchUnit, UnitStates

if TYPE_CHECKING:
    from ..image_path import ImagePath
    from .unit_folders import UnitFolder

_SYSTEMD = ("usr/lib/systemd/systemd", "lib/systemd/systemd")
_OPENRC = "etc/runlevels"
_SYSV = "etc/init.d"
_WITHOUT_PRESET = {"alias", "static", "generated", "transient"}


class Services(Mapping[str, Service]):
    """Services by name. Of systemd, these are the units that `systemctl --root=… list-unit-files` lists.

    Looking up an instance of a template gives its state too: ``image.services["getty@tty1.service"]``.
    """

    def __init__(self, services: dict[str, Service], units: _Units | None = None) -> None:
        self._services, self._units = services, units

    def __getitem__(self, name: str) -> Service:
        if name in self._services or self._units is None or not _is_instance(name):
            return self._services[name]
        try:
            return self._units.service(name)
        except NoSuchUnit:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._services)

    def __len__(self) -> int:
        return len(self._services)

    def __repr__(self) -> str:
        return f"<{len(self)} services>"


def _is_instance(name: object) -> bool:
    return isinstance(name, str) and unit_names.is_valid(name) and unit_names.is_instance(name)


def read_services(root: ImagePath) -> Services:
    """The services.

    Which init the image has is told by its files: systemd's program, else OpenRC's run levels, else unit files, else
    scripts in ``/etc/init.d``.

    :raises FactsMissing: it has none of them
    """
    has_systemd = any((root / program).exists() for program in _SYSTEMD)
    if not has_systemd and (root / _OPENRC).is_dir():
        return Services(read_openrc(root))
    folders = read_unit_folders(root)
    if folders:
        units = _Units(root, folders)
        return Services({name: units.service(name) for name in units.names()}, units)
    if (root / _SYSV).is_dir():
        return Services(read_sysv(root))
    looked = [f"/{program}" for program in _SYSTEMD] + [*SEARCH_PATH, f"/{_OPENRC}", f"/{_SYSV}"]
    raise missing(root, "services", looked, "the image may have no init; or mount the partition that holds /usr")


class _Units:
    """systemd's units."""

    def __init__(self, root: ImagePath, folders: list[UnitFolder]) -> None:
        self._folders = folders
        self._states, self._presets = UnitStates(root, folders), Presets(root)

    def names(self) -> list[str]:
        return sorted({name for folder in self._folders for name in folder.names if unit_names.is_valid(name)})

    def service(self, name: str) -> Service:
        state, path = self._states.state_of(name)
        preset = None if state in _WITHOUT_PRESET else self._presets.state_of(name)
        pulling = {each for folder in self._folders for each, links in folder.pulled.items() if name in links}
        wanted_by = sorted({each.rpartition(".")[0] for each in pulling})
        return Service(name, state, preset, tuple(wanted_by), path)
