"""The paths that a package owns, as databases keep them: folders, and names in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_CHARACTERS = 64 << 20
"""Of the paths of one package, all together; a package with a hundred thousand files has a tenth of it."""


@dataclass(frozen=True, slots=True)
class OwnedPaths:
    """The paths, put together only when they are asked for: they can take thousands of times what the database does.

    :param folders: with a slash at the end
    :param places: for each name, which of ``folders`` it is in
    :raises ValueError: they are longer than :data:`MOST_CHARACTERS`, or a place is none of a folder
    """

    folders: Sequence[str]
    names: Sequence[str]
    places: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.places) or any(place >= len(self.folders) for place in self.places):
            raise ValueError("has a list of files that does not fit together")
        lengths = [len(folder) for folder in self.folders]
        if sum(map(len, self.names)) + sum(lengths[place] for place in self.places) > MOST_CHARACTERS:
            raise ValueError(f"has a list of files of more than {MOST_CHARACTERS >> 20} MiB")

    def __call__(self) -> tuple[str, ...]:
        return tuple(self.folders[place] + name for name, place in zip(self.names, self.places, strict=True))
