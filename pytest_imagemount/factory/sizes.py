"""Sizes as people write them."""

from __future__ import annotations

import re

from ..errors import RequestInvalid

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
_UNITS = {"": 1, "K": KIB, "M": MIB, "G": GIB, "T": 1 << 40}


def parse_size(value: int | str, argument: str = "size") -> int:
    """Bytes: ``value`` itself, or text with a binary unit, ``"64M"``, ``"512K"``, ``"1G"``, ``"2T"``, ``"4096"``.

    :raises RequestInvalid: it is neither, or not above zero
    """
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = re.fullmatch(r"([0-9]+)\s*([KMGT]?)(?:iB|B)?", str(value).strip(), re.IGNORECASE)
        if not match:
            reason = "give bytes, or text with a binary unit: '64M', '512K', '1G'"
            raise RequestInvalid(argument=argument, value=repr(value), reason=reason)
        size = int(match[1]) * _UNITS[match[2].upper()]
    if size <= 0:
        raise RequestInvalid(argument=argument, value=repr(value), reason="is not above zero")
    return size


def round_up(value: int, unit: int) -> int:
    """``value`` or the next multiple of ``unit`` above it."""
    return -(-value // unit) * unit
