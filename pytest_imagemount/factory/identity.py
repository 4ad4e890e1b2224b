"""UUIDs, disk signatures and partition types: given ones checked, others derived from what is built.

Derived ones are the same for equal input and differ for other input, so that two different images of one test are
never taken for copies of one file system (which xfs refuses to mount and btrfs would mix up).
"""

from __future__ import annotations

import difflib
import re
import uuid
from dataclasses import dataclass

from ..engine.tables.partition_types import GPT_TYPES, MBR_TYPES
from ..errors import RequestInvalid

_NAMESPACE = uuid.UUID("5d5ee8b9-3ee5-4f56-a8b4-3d2f7d6c1e09")

_GPT_DEFAULTS = {"swap": "swap", "vfat": "microsoft-basic-data"}
_MBR_DEFAULTS = {"swap": 0x82, "vfat": 0x0C}
_MBR_LINUX = 0x83
_MBR_EXTENDED = frozenset({0x05, 0x0F, 0x85})


@dataclass(frozen=True, slots=True)
class Seed:
    """The digest of everything that an image is built from."""

    text: str

    def uuid(self, what: str) -> uuid.UUID:
        """The UUID of ``what`` in this image."""
        return uuid.uuid5(_NAMESPACE, f"{self.text}/{what}")


def parse_uuid(value: str | uuid.UUID, argument: str) -> uuid.UUID:
    """``value`` as a UUID.

    :raises RequestInvalid: it is none
    """
    try:
        return value if isinstance(value, uuid.UUID) else uuid.UUID(value)
    except (ValueError, AttributeError, TypeError):
        reason = "is not a UUID such as 0fc63daf-8483-4772-8e79-3d69d8477de4"
        raise RequestInvalid(argument=argument, value=repr(value), reason=reason) from None


def filesystem_uuid(fstype: str, given: str | uuid.UUID | None, seed: Seed, what: str) -> str:
    """The UUID of a file system as its mkfs takes it: for vfat the eight digits of a volume number.

    :raises RequestInvalid: it is not of that form, or the type has none
    """
    if given is not None and fstype == "squashfs":
        raise RequestInvalid(argument="uuid", value=repr(given), reason="squashfs has no UUID")
    if fstype == "vfat":
        return f"{seed.uuid(what).fields[0] if given is None else _hexadecimal(given, 'uuid'):08x}"
    return str(seed.uuid(what) if given is None else parse_uuid(given, "uuid"))


def disk_signature(given: str | uuid.UUID | None, seed: Seed) -> int:
    """The 32-bit identifier of an MBR, from which Linux makes PARTUUIDs.

    :raises RequestInvalid: it is not eight hexadecimal digits
    """
    return seed.uuid("disk").fields[0] if given is None else _hexadecimal(given, "uuid")


def _hexadecimal(given: object, argument: str) -> int:
    match = re.fullmatch(r"(?:0x)?([0-9a-f]{4})-?([0-9a-f]{4})", str(given), re.IGNORECASE)
    if not match:
        reason = "is not eight hexadecimal digits such as 1234-abcd"
        raise RequestInvalid(argument=argument, value=repr(given), reason=reason)
    return int(match[1] + match[2], 16)


def gpt_type(given: str | int | uuid.UUID | None, fstype: str | None) -> uuid.UUID:
    """The type of a GPT partition, from a UUID, or a name as ``imagemount inspect`` shows it.

    :raises RequestInvalid: it is neither
    """
    name = _GPT_DEFAULTS.get(fstype or "", "linux-generic") if given is None else given
    for guid, known in GPT_TYPES.items():
        if known == name:
            return uuid.UUID(guid)
    try:
        return name if isinstance(name, uuid.UUID) else uuid.UUID(str(name))
    except ValueError:
        near = ", ".join(difflib.get_close_matches(str(name), GPT_TYPES.values(), n=5, cutoff=0.4)) or "linux-generic"
        reason = f"is neither a UUID nor a known partition type; there are: {near} and {len(GPT_TYPES)} in all"
        raise RequestInvalid(argument="type", value=repr(name), reason=reason) from None


def mbr_type(given: str | int | uuid.UUID | None, fstype: str | None) -> int:
    """The type byte of an MBR partition, from its number or its name as ``imagemount inspect`` shows it.

    :raises RequestInvalid: it is neither, or one of an extended partition
    """
    if given is None:
        return _MBR_DEFAULTS.get(fstype or "", _MBR_LINUX)
    for code, known in MBR_TYPES.items():
        if known == given:
            given = code
    if not isinstance(given, int) or not 0 < given < 256 or given in _MBR_EXTENDED:
        reason = (
            "in an MBR a type is a number such as 0x83, or a name such as 'linux'; extended ones come by themselves"
        )
        raise RequestInvalid(argument="type", value=repr(given), reason=reason)
    return given
