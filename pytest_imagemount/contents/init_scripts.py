"""Services that are scripts: OpenRC's run levels, and those of System V init."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .reading import entries, is_executable, regular_files
from .service import Service

if TYPE_CHECKING:
    from ..image_path import ImagePath
_SCRIPTS = "etc/init.d"
_RUN_LEVELS = "etc/runlevels"
_SYSV_STARTS = re.compile(r"S[0-9]{2}(.+)")
_NO_SERVICES = {"functions", "functions.sh", "halt", "killall", "netconsole", "README", "rc", "rcS", "skeleton"}


def read_openrc(root: ImagePath) -> dict[str, Service]:
    """A script is enabled where a run level has a link to it."""
    levels: dict[str, list[str]] = {}
    for level in entries(root / _RUN_LEVELS):
        for link in entries(root / _RUN_LEVELS / level.name):
            levels.setdefault(link.name, []).append(level.name)
    return _services(root, levels)


def read_sysv(root: ImagePath) -> dict[str, Service]:
    """A script is enabled where run level 2, 3, 4, 5 or S starts it.

    Without run levels it is where its own name is like ``S40name``, which is what busybox's init starts.
    """
    levels: dict[str, list[str]] = {}
    for level in "S2345":
        for folder in (f"etc/rc{level}.d", f"etc/rc.d/rc{level}.d"):
            for link in entries(root / folder):
                if match := _SYSV_STARTS.fullmatch(link.name):
                    levels.setdefault(match[1], []).append(level)
    services = _services(root, {name: list(dict.fromkeys(found)) for name, found in levels.items()})
    if levels:
        return services
    by_itself = {name: bool(_SYSV_STARTS.fullmatch(name)) for name in services}
    return {
        name: Service(name, "enabled" if by_itself[name] else "disabled", None, (), service.path)
        for name, service in services.items()
    }


def _services(root: ImagePath, levels: dict[str, list[str]]) -> dict[str, Service]:
    found: dict[str, Service] = {}
    for path in regular_files(root / _SCRIPTS):
        if path.name not in _NO_SERVICES and is_executable(path):
            wanted_by = tuple(sorted(levels.get(path.name, [])))
            state = "enabled" if wanted_by else "disabled"
            found[path.name] = Service(path.name, state, None, wanted_by, str(path))
    return found
