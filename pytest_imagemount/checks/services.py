"""``services``: the state of systemd units, or of the scripts of another init."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..contents.unit_names import TYPES
from .problem import Problem, value_problems
from .values import show_list, similar

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from ..shared_images import SharedImage
    from .plan import Check

_SUFFIXES = tuple(f".{kind}" for kind in TYPES)


def check_services(check: Check, shared: SharedImage) -> Iterator[Problem]:
    """The problems of one entry of ``services``."""
    services = shared.image.services
    name = service_name(check.subject, services)
    service = services.get(name)
    hint = "" if service is not None else similar(name, services) or similar(check.subject, services)
    state = "absent" if service is None else service.state
    wanted = check.texts("state")
    if wanted and state not in wanted:
        path = f", {service.path}" if service is not None else ""
        yield Problem("state", " or ".join(wanted), f"{state}{path}{hint}")
    if service is None:
        if not wanted:
            yield Problem("state", "a unit", f"absent{hint}")
        return
    for unit in check.texts("wanted-by"):
        if unit not in service.wanted_by:
            yield Problem("wanted-by", unit, show_list(service.wanted_by))
    yield from value_problems(check, {"preset": service.preset})


def service_name(name: str, services: Container[str]) -> str:
    """``ssh.service`` for ``ssh``; a name with a suffix, or that a script of the image has, is as it is."""
    return name if name.endswith(_SUFFIXES) or name in services else f"{name}.service"
