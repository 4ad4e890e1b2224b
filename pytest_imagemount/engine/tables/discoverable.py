"""The Discoverable Partitions Specification (UAPI.2): which partition plays which part in an installed system."""

from __future__ import annotations

import hashlib
import hmac
import platform
import uuid
from typing import TYPE_CHECKING

from ...errors import RequestInvalid
from .discoverable_types import ARCHITECTURES, OF_ARCHITECTURES, WITHOUT_ARCHITECTURE

if TYPE_CHECKING:
    from .partition_table import Partition, PartitionTable

ROLES = ("root", "usr", "home", "srv", "var", "tmp", "esp", "xbootldr", "swap")
"""What :func:`discoverable_roles` finds."""

# uname(2), Debian and Go name machines in their own ways.
_OTHER_NAMES = {
    "aarch64": "arm64",
    "amd64": "x86-64",
    "armel": "arm",
    "armhf": "arm",
    "armv5tel": "arm",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "hppa": "parisc",
    "i386": "x86",
    "i486": "x86",
    "i586": "x86",
    "i686": "x86",
    "loong64": "loongarch64",
    "mips64el": "mips64-le",
    "mipsel": "mips-le",
    "parisc64": "parisc",
    "powerpc": "ppc",
    "ppc64el": "ppc64-le",
    "ppc64le": "ppc64-le",
    "sh4a": "sh4",
    "x86_64": "x86-64",
}
_ARCHITECTURE_OF_TYPE = {
    guid: architecture for guids in OF_ARCHITECTURES.values() for architecture, guid in guids.items()
}


def architecture_name(architecture: str | None = None) -> str:
    """The specification's name (``x86-64``, ``arm64``, …) of ``architecture``; of this machine's where that is None.

    The names of :func:`platform.machine` and of Debian's ports are understood too.

    :raises RequestInvalid: ``architecture`` is no name of any
    """
    if architecture is None:
        machine = platform.machine().lower()
        return _OTHER_NAMES.get(machine, machine)
    folded = architecture.casefold()
    name = _OTHER_NAMES.get(folded, folded)
    if name not in ARCHITECTURES:
        reason = f"not an architecture that root partitions are marked with; those are {', '.join(ARCHITECTURES)}"
        raise RequestInvalid(argument="architecture", value=repr(architecture), reason=reason)
    return name


def root_type_name(architecture: str | None = None) -> str:
    """The name of the root partition's type on ``architecture``, which is as for :func:`architecture_name`."""
    return f"root-{architecture_name(architecture)}"


def architecture_of(partition: Partition) -> str | None:
    """The architecture that the partition's type names, or None where it names none."""
    return _ARCHITECTURE_OF_TYPE.get(partition.type)


def discoverable_roles(table: PartitionTable | None, architecture: str | None = None) -> dict[str, Partition]:
    """Role, one of :data:`ROLES`, to the partition that plays it on ``architecture``; only those that are there.

    The first of each type counts, in the order of their numbers. Those with the no-auto attribute do not, but for the
    ESP, to which the specification does not apply it. Only a GPT has such types. Whether the one for ``/var`` belongs
    to this installation is for the caller to compare: see :func:`var_partition_uuid`.

    :param architecture: as for :func:`architecture_name`; give that of the root partition
    :raises RequestInvalid: there is no such architecture
    """
    name = architecture_name(architecture)
    role_of = {guid: role for role, guid in WITHOUT_ARCHITECTURE.items() if role in ROLES}
    for kind in ("root", "usr"):
        if guid := OF_ARCHITECTURES[kind, ""].get(name):
            role_of[guid] = kind
    found: dict[str, Partition] = {}
    for partition in table.partitions if table and table.kind == "gpt" else ():
        role = role_of.get(partition.type)
        if role and (role == "esp" or not partition.no_auto):
            found.setdefault(role, partition)
    return {role: found[role] for role in ROLES if role in found}


def var_partition_uuid(machine_id: str) -> str:
    """The PARTUUID that ``/var`` must have to belong to the installation with this ``/etc/machine-id``.

    :param machine_id: 32 hexadecimal digits
    :raises ValueError: it is not that
    """
    key = uuid.UUID(hex=machine_id.strip()).bytes
    kind = uuid.UUID(WITHOUT_ARCHITECTURE["var"]).bytes
    # Its version and variant bits are set as in a random UUID: so does sd_id128_get_app_specific, which writes it.
    return str(uuid.UUID(bytes=hmac.digest(key, kind, hashlib.sha256)[:16], version=4))
