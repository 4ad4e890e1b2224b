"""Names of systemd's units, as systemd.unit(5) has them: ``ssh.service``, template ``getty@.service``, instance."""

from __future__ import annotations

import re

TYPES = (
    "service",
    "socket",
    "target",
    "device",
    "mount",
    "automount",
    "swap",
    "timer",
    "path",
    "slice",
    "scope",
)
WITH_ALIASES = ("service", "socket", "target", "device", "timer", "path")
WITH_TEMPLATES = ("service", "socket", "target", "timer", "path")

_LONGEST = 255
_CHARACTERS = r"[0-9A-Za-z:_.\\-]"
_NAME = re.compile(rf"(?P<prefix>{_CHARACTERS}+)(?P<instance>@(?:{_CHARACTERS}|@)*)?\.(?:{'|'.join(TYPES)})")
_INSTANCE = re.compile(rf"(?:{_CHARACTERS}|@)+")


def is_valid(name: str) -> bool:
    """Whether it is the name of a unit, template or instance."""
    return len(name) <= _LONGEST and _NAME.fullmatch(name) is not None


def type_of(name: str) -> str:
    """``service``, ``socket``, …"""
    return name.rpartition(".")[2]


def prefix_of(name: str) -> str:
    """What stands before the ``@``, or before the type."""
    head, at, _ = name.partition("@")
    return head if at else name.rpartition(".")[0]


def instance_of(name: str) -> str | None:
    """What stands after the ``@``: nothing for a template; None for a plain name."""
    return name.rpartition(".")[0].partition("@")[2] if "@" in name else None


def is_template(name: str) -> bool:
    """``getty@.service``."""
    return instance_of(name) == ""


def is_instance(name: str) -> bool:
    """``getty@tty1.service``."""
    return bool(instance_of(name))


def template_of(name: str) -> str:
    """``getty@.service`` for ``getty@tty1.service``; the name itself for a template."""
    return f"{prefix_of(name)}@.{type_of(name)}"


def with_instance(name: str, instance: str) -> str | None:
    """The template or instance with another instance; None where that makes no valid name."""
    new = f"{prefix_of(name)}@{instance}.{type_of(name)}"
    return new if _INSTANCE.fullmatch(instance) and is_valid(new) else None
