"""What an installed system says of itself: os-release, kernels, machine id, host name, time zone, locale."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cmp_to_key
from typing import TYPE_CHECKING, Literal

from .architecture import read_architecture
from .assignments import parse_assignments
from .reading import entries, first_text, link_text, missing, read_text
from .versions import compare_rpm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..image_path import ImagePath

MachineId = Literal["absent", "empty", "uninitialized", "set"]

_OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
_MODULES = ("usr/lib/modules", "lib/modules")
_KERNEL_FILES = ("vmlinuz-", "vmlinux-", "Image-", "zImage-", "uImage-", "kernel-")
_LOCALE = ("etc/locale.conf", "etc/default/locale", "etc/sysconfig/i18n", "etc/env.d/02locale")
_SMALL = 1 << 20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class OsFacts:
    """An installed system.

    :param id: ``debian``; ``linux`` where os-release does not say, as os-release(5) has it
    :param version_id: ``12``; None where there is none, as on a rolling release
    :param name: ``Debian GNU/Linux``
    :param pretty_name: ``Debian GNU/Linux 12 (bookworm)``
    :param fields: all of os-release
    :param architecture: what the shell (or init, or the C library) is made for, by the name that uname(2) gives the
        machine: ``x86_64``, ``aarch64``; every 32-bit x86 is ``i386`` and every 32-bit ARM ``arm``, since ELF tells no
        more; None where nothing says it
    :param kernels: versions, the lowest first, of ``lib/modules`` and of the kernels in ``boot``
    :param machine_id: ``uninitialized`` is what machine-id(5) has for a first boot; ``set`` is any other content
    :param hostname: of ``etc/hostname``; None where it is absent or empty
    :param timezone: ``Europe/Berlin``, by the link ``etc/localtime``, else by ``etc/timezone``; None where neither says
    :param locale: the value of ``LANG`` for the whole system; None where it is not set
    """

    id: str
    version_id: str | None
    name: str
    pretty_name: str
    fields: Mapping[str, str]
    architecture: str | None
    kernels: tuple[str, ...]
    machine_id: MachineId
    hostname: str | None
    timezone: str | None
    locale: str | None


def read_os(root: ImagePath) -> OsFacts:
    """The facts.

    :raises FactsMissing: there is no os-release
    """
    found = first_text(root, _OS_RELEASE, _SMALL)
    if found is None:
        hint = "mount the partition that holds /usr; `imagemount inspect` lists the partitions"
        raise missing(root, "os-release", [f"/{path}" for path in _OS_RELEASE], hint)
    fields = parse_assignments(found[1])
    name = fields.get("NAME") or "Linux"
    return OsFacts(
        id=fields.get("ID") or "linux",
        version_id=fields.get("VERSION_ID") or None,
        name=name,
        pretty_name=fields.get("PRETTY_NAME") or name,
        fields=fields,
        architecture=read_architecture(root),
        kernels=read_kernels(root),
        machine_id=read_machine_id(root),
        hostname=_hostname(root),
        timezone=_timezone(root),
        locale=_locale(root),
    )


def read_kernels(root: ImagePath) -> tuple[str, ...]:
    """The versions, the lowest first."""
    folders = (entry.name for folder in _MODULES for entry in entries(root / folder) if entry.is_folder)
    found = {name for name in folders if name[:1].isdigit()}
    for entry in entries(root / "boot"):
        for prefix in _KERNEL_FILES:
            version = entry.name.removeprefix(prefix)
            # Fedora's rescue kernel is named after the machine and not after a version.
            if version != entry.name and version[:1].isdigit() and not version.startswith("0-rescue"):
                found.add(version)
    return tuple(sorted(found, key=cmp_to_key(compare_rpm)))


def read_machine_id(root: ImagePath) -> MachineId:
    """See :class:`OsFacts`."""
    text = read_text(root / "etc/machine-id", _SMALL)
    if text is None:
        return "absent"
    if not text.strip():
        return "empty"
    return "uninitialized" if text.strip() == "uninitialized" else "set"


def _hostname(root: ImagePath) -> str | None:
    for line in (read_text(root / "etc/hostname", _SMALL) or "").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            return line.strip()
    fields = parse_assignments(read_text(root / "etc/conf.d/hostname", _SMALL) or "")
    return fields.get("hostname") or fields.get("HOSTNAME") or None


def _timezone(root: ImagePath) -> str | None:
    _, found, zone = (link_text(root / "etc/localtime") or "").partition("zoneinfo/")
    if found and zone:
        return zone.removeprefix("posix/").removeprefix("right/")
    return (read_text(root / "etc/timezone", _SMALL) or "").strip() or None


def _locale(root: ImagePath) -> str | None:
    for path in _LOCALE:
        locale = parse_assignments(read_text(root / path, _SMALL) or "").get("LANG")
        if locale:
            return locale
    return None
