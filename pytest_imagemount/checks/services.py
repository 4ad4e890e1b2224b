"""``services``: the state of systemd units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .problem import Problem
from .values import show_list, similar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..shared_images import SharedImage
    from .plan import Check

_SUFFIXES = (
    ".service", ".socket", ".timer", ".path", ".target", ".mount", ".automount", ".swap", ".slice", ".scope", ".device",
)  # fmt: skip


def check_services(check: Check, shared: SharedImage) -> Iterator[Problem]:
    """The problems of one entry of ``services``."""
    services = shared.image.services
    name = unit_name(check.subject)
    service = services.get(name)
    state = "absent" if service is None else service.state
    wanted = check.texts("state")
    if wanted and state not in wanted:
        hint = similar(name, services) if service is None else ""
        path = f", {service.path}" if service is not None else ""
        yield Problem("state", " or ".join(wanted), f"{state}{path}{hint}")
    if service is None:
        if not wanted:
            yield Problem("state", "a unit", f"absent{similar(name, services)}")
        return
    for unit in check.texts("wanted-by"):
        if unit not in service.wanted_by:
            yield Problem("wanted-by", unit, show_list(service.wanted_by))
    if "preset" in check.expect and check.text("preset") != service.preset:
        yield Problem("preset", check.text("preset"), service.preset or "none")


def unit_name(name: str) -> str:
    """``ssh.service`` for ``ssh``; a name with a suffix is as it is."""
    return name if name.endswith(_SUFFIXES) else f"{name}.service"
