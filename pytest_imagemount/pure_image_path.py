"""The text of a path in an image: nothing here looks at the image."""

from __future__ import annotations

import os
from functools import total_ordering
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Self

from .path_pattern import path_matcher

if TYPE_CHECKING:
    from .image_root import ImageRoot


@total_ordering
class PureImagePath:
    """The part of :class:`ImagePath` that PurePosixPath is of a pathlib path. Always absolute.

    Paths of different images are never equal and have no order.
    """

    __slots__ = ("_path", "_root")

    def __init__(self, root: ImageRoot, path: str | PurePosixPath = "/") -> None:
        # Two leading slashes are a root of their own in POSIX and in pathlib; here they are one.
        self._root, self._path = root, PurePosixPath("/" + str(path).lstrip("/"))

    def __str__(self) -> str:
        return str(self._path)

    def __repr__(self) -> str:
        # The image comes first and whole: pytest shows this below a failed assertion, and cuts the middle of long ones.
        return f"{type(self).__name__}({self._root.title!r}, {str(self)!r})"

    def __hash__(self) -> int:
        return hash((self._root, self._path))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PureImagePath):
            return NotImplemented
        return self._root is other._root and self._path == other._path

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, PureImagePath) or self._root is not other._root:
            return NotImplemented
        return self._path < other._path

    def __truediv__(self, other: str | os.PathLike[str]) -> Self:
        return self.joinpath(other)

    def joinpath(self, *others: str | os.PathLike[str]) -> Self:
        """The path with ``others`` added; an absolute one starts again at the image's root. ``..`` is kept."""
        return self._at(self._path.joinpath(*map(self._text, others)))

    @property
    def label(self) -> str:
        """What to call it in a message: ``disk.qcow2 partition 2:/etc/hostname``."""
        return self._root.label(self._path)

    @property
    def drive(self) -> str:
        """Empty, as in every POSIX path."""
        return self._path.drive

    @property
    def root(self) -> str:
        """``/``: that of the image."""
        return self._path.root

    @property
    def anchor(self) -> str:
        """``/``: that of the image."""
        return self._path.anchor

    @property
    def name(self) -> str:
        """The last part; empty for the image's root."""
        return self._path.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self._path.stem

    @property
    def suffix(self) -> str:
        """The last suffix with its dot, or an empty string."""
        return self._path.suffix

    @property
    def suffixes(self) -> list[str]:
        """All suffixes, each with its dot."""
        return self._path.suffixes

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts, the first of which is ``/``."""
        return self._path.parts

    @property
    def parent(self) -> Self:
        """The path without its last part; by its text, as in pathlib."""
        return self._at(self._path.parent)

    @property
    def parents(self) -> tuple[Self, ...]:
        """The parent, its parent, and so on to the image's root."""
        return tuple(self._at(parent) for parent in self._path.parents)

    def with_name(self, name: str) -> Self:
        """The path with another last part."""
        return self._at(self._path.with_name(name))

    def with_stem(self, stem: str) -> Self:
        """The path with another last part that keeps its suffix."""
        return self._at(self._path.with_stem(stem))

    def with_suffix(self, suffix: str) -> Self:
        """The path with another suffix, or none for an empty string."""
        return self._at(self._path.with_suffix(suffix))

    def as_posix(self) -> str:
        """The text, as str() gives it."""
        return str(self)

    def is_absolute(self) -> bool:
        """True: a path of an image starts at the image's root."""
        return True

    def absolute(self) -> Self:
        """The path itself."""
        return self

    def relative_to(self, other: str | os.PathLike[str], *, walk_up: bool = False) -> PurePosixPath:
        """The rest of the path below ``other``; ValueError where it does not start with that.

        :param walk_up: put ``..`` in front, as many as it takes, where it does not; by the text alone, as in pathlib
        """
        start = self._inside(other)._path
        steps = 0
        while walk_up and not self._path.is_relative_to(start):
            if start.name == "..":
                raise ValueError(f"from {str(other)!r} nothing can be told by its text, for its '..'")
            start, steps = start.parent, steps + 1
        return PurePosixPath(*[".."] * steps, self._path.relative_to(start))

    def is_relative_to(self, other: str | os.PathLike[str]) -> bool:
        """Whether the path starts with ``other``."""
        return self._path.is_relative_to(self._inside(other)._path)

    def match(self, pattern: str, *, case_sensitive: bool | None = None) -> bool:
        """As PurePosixPath.match: a relative pattern is compared from the right. Case matters unless told."""
        if case_sensitive is False:
            return PurePosixPath(str(self).lower()).match(pattern.lower())
        return self._path.match(pattern)

    def full_match(self, pattern: str, *, case_sensitive: bool | None = None) -> bool:
        """Whether all of the path matches, as in Python 3.13: ``**`` is any number of parts, ``*`` stays in one.

        A pattern is as absolute as the path: ``"etc/*"`` and ``"/etc/*"`` are the same. Case matters unless told.
        """
        return path_matcher(pattern, case_sensitive=case_sensitive is not False)(str(self))

    def _text(self, other: str | os.PathLike[str]) -> str:
        """The text of a path that is to be read inside the image."""
        if isinstance(other, PureImagePath):
            if other._root is not self._root:
                raise ValueError(f"{other!r} is in another image than {self!r}")
            return str(other)
        text = os.fspath(other)
        if not isinstance(text, str):
            raise TypeError(f"a path in an image is text, not {type(text).__name__}")
        return text

    def _inside(self, other: str | os.PathLike[str]) -> Self:
        return self._at(self._text(other))

    def _at(self, path: str | PurePosixPath) -> Self:
        return type(self)(self._root, path)
