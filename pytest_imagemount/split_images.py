"""Raw images in parts of equal size: ``disk.img.001``, ``disk.img.002``, …

That it is such an image is told by the names of files, the only thing here that is: the first part of a disk is no
different from a disk that was cut short.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .errors import ImageInvalid, ImageUnreadable

if TYPE_CHECKING:
    from pathlib import Path

_FIRST = re.compile(r"(.+\.)(00[01])")


def other_parts(path: Path, name: str) -> list[Path]:
    """The parts after ``path`` of the image that it is the first part of; none where it is a whole image.

    :param name: what errors call it
    :raises ImageInvalid: a part is missing, or is of another size than it must be
    :raises ImageUnreadable: the caller may not list the folder that the parts are in
    """
    first = _FIRST.fullmatch(path.name)
    if first is None:
        return []
    stem, start = first[1], int(first[2])
    later = re.compile(re.escape(stem) + r"([0-9]{3})")
    numbers = [int(found[1]) for entry in _names_in(path.parent, name) if (found := later.fullmatch(entry))]
    last = max((number for number in numbers if number > start), default=start)
    parts = [path.with_name(f"{stem}{number:03}") for number in range(start + 1, last + 1)]
    if missing := [part.name for part in parts if not part.is_file()]:
        reason = f"of its parts up to {parts[-1].name}, there is no {', '.join(missing[:8])}"
        raise ImageInvalid(image=name, reason=reason, hint=f"put it beside {path.name}")
    _require_equal_sizes(path, parts, name)
    return parts


def _names_in(folder: Path, name: str) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError as error:
        reason = f"its folder, where further parts would be, cannot be listed: {error.strerror}"
        hint = "allow it with chmod, or give it a name without .001 at its end"
        raise ImageUnreadable(image=name, mode="ro", reason=reason, hint=hint) from None


def _require_equal_sizes(first: Path, others: list[Path], name: str) -> None:
    size = first.stat().st_size
    for part in others:
        own = part.stat().st_size
        if own > size or (own < size and part != others[-1]):
            reason = f"{part.name} has {own} bytes where each part but the last has {size}"
            hint = "get whole copies of its parts; or, if these are images by themselves, give them other names"
            raise ImageInvalid(image=name, reason=reason, hint=hint)
