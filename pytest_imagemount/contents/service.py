"""One service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .unit_presets import PresetState


@dataclass(frozen=True, slots=True)
class Service:
    """A unit of systemd, or a script of another init.

    :param name: with its type: ``ssh.service``; that of a script as it stands
    :param state: what `systemctl is-enabled` says: ``enabled``, ``disabled``, ``static``, ``masked``, ``alias``,
        ``indirect``, ``linked``, ``generated``, ``enabled-runtime``, …; ``bad`` is a unit that systemd cannot load
    :param preset: ``enabled`` or ``disabled`` (or ``ignored``), by the preset files; None where systemd shows none, as
        for static units
    :param wanted_by: the units whose ``.wants`` or ``.requires`` folders have a link to it; of scripts the run levels
    :param path: its file in the image, the real one for an alias
    """

    name: str
    state: str
    preset: PresetState | None
    wanted_by: tuple[str, ...]
    path: str

    @property
    def enabled(self) -> bool:
        """Whether it starts by itself, in an image that boots: ``enabled`` or ``enabled-runtime``."""
        return self.state in ("enabled", "enabled-runtime")
