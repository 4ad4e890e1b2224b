"""Values, and text from an image, made fit to print."""

from __future__ import annotations

import time

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def printable(text: str) -> str:
    """``text`` with every control, format and unpaired surrogate character escaped, as a terminal may be given it."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def human_size(size: int) -> str:
    """``size`` bytes in the largest binary unit that keeps at least 1 of it: ``512 B``, ``64 MiB``, ``1.5 GiB``."""
    unit = min(max(size.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    whole, rest = divmod(size, 1 << (10 * unit))
    return f"{size / (1 << (10 * unit)):.1f} {_UNITS[unit]}" if rest else f"{whole} {_UNITS[unit]}"


def elapsed(since: float) -> str:
    """How long ago ``since`` was, in seconds since the epoch: ``for 12 s``."""
    return f"for {max(0, time.time() - since):.0f} s"
