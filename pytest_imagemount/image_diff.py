"""diff: what two images, folders of images, or saved manifests do not have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

from .engine.text import printable
from .file_facts import Difference, FileFacts, differences
from .manifest import FactsOfTree, Manifest, order, read_facts, walk_facts
from .path_pattern import any_matcher

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from .image_path import ImagePath
    from .mounted_image import MountedImage

    Tree: TypeAlias = MountedImage | ImagePath | Manifest | str | os.PathLike[str]

SHOWN = 20
"""Differences that are listed; the rest is counted."""
_SHOWN_IN_REPR = 3


@dataclass(frozen=True, slots=True)
class Change:
    """A path at which the two differ. ``left`` is None for what was added, ``right`` for what was removed."""

    path: str
    left: FileFacts | None
    right: FileFacts | None

    @property
    def reasons(self) -> list[Difference]:
        """The facts that differ, with both values as text; none for what was added or removed."""
        return [] if self.left is None or self.right is None else differences(self.left, self.right)

    def __str__(self) -> str:
        path = printable(self.path)
        if self.left is None:
            return f"+ {path}: {self.right}"
        if self.right is None:
            return f"- {path}: {self.left}"
        return f"~ {path}: " + "; ".join(f"{fact} {left} -> {right}" for fact, left, right in self.reasons)


@dataclass(frozen=True, slots=True, repr=False)
class ImageDiff:
    """What two trees do not have in common; false where they are equal, so that a check is ``assert not diff(a, b)``.

    :param left: name of the first tree, as ``disk.qcow2 partition 2``
    :param right: name of the second
    :param changes: in the order of the paths
    """

    left: str
    right: str
    changes: tuple[Change, ...]

    @property
    def added(self) -> dict[str, FileFacts]:
        """What only the second tree has, by path."""
        return {each.path: each.right for each in self.changes if each.left is None and each.right is not None}

    @property
    def removed(self) -> dict[str, FileFacts]:
        """What only the first tree has, by path."""
        return {each.path: each.left for each in self.changes if each.right is None and each.left is not None}

    @property
    def changed(self) -> dict[str, Change]:
        """What both have, and not the same, by path."""
        return {each.path: each for each in self.changes if each.left is not None and each.right is not None}

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def summary(self) -> str:
        """``a.raw (-) and b.raw (+) differ: 1 added, 2 removed, 3 changed``, or that they are equal.

        The signs are those of the lines: two builds of an image often have one name.
        """
        names = f"{printable(self.left)} (-) and {printable(self.right)} (+)"
        if not self:
            return f"{names} are equal"
        added = sum(each.left is None for each in self.changes)
        removed = sum(each.right is None for each in self.changes)
        return f"{names} differ: {added} added, {removed} removed, {len(self) - added - removed} changed"

    def lines(self, limit: int | None = SHOWN) -> list[str]:
        """The summary and the first ``limit`` differences, a line each, and how many more there are.

        What is below a folder that was added or removed is counted with the folder. Characters that a terminal would
        obey are escaped.
        """
        listed = list(_collapsed(self.changes))
        shown = [f"  {change}{f', and {below} below it' if below else ''}" for change, below in listed[:limit]]
        more = len(listed) - len(shown)
        return [self.summary(), *shown, *([f"  … and {more} more"] if more else [])]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def __repr__(self) -> str:
        # One short line: pytest shows it in the failed assertion, and cuts the middle out of what is longer.
        listed = list(islice(_collapsed(self.changes), _SHOWN_IN_REPR + 1))
        marks = [f"{str(change)[0]}{printable(change.path)}" for change, _ in listed[:_SHOWN_IN_REPR]]
        more = ["…"] if len(listed) > _SHOWN_IN_REPR else []
        return f"<ImageDiff: {self.summary()}{': ' if marks else ''}{', '.join(marks + more)}>"


def diff(
    left: Tree, right: Tree, *, content: bool = True, times: bool = False, ignore: Iterable[str] = ()
) -> ImageDiff:
    """Compare two trees: mounted images, folders in them, manifests, or files that hold saved manifests.

    Type, mode, owner by number, size, content by its SHA-256, targets of links, device numbers and extended attributes
    (capabilities, access control lists and SELinux labels among them) are compared. The trees are read side by side, so
    that only what differs is held in memory.

    :param content: compare the content of files; without, they are told apart by their size alone
    :param times: compare the times of the last change too
    :param ignore: patterns of paths that are not compared, nor what is below: ``"/var/log/**"``, ``"/etc/machine-id"``
    :raises OSError: a file cannot be read
    :raises ManifestInvalid: a file is no saved manifest
    """
    patterns = list(ignore)
    ours, theirs = (_facts(tree, content=content, times=times, ignore=patterns) for tree in (left, right))
    changes = tuple(
        Change((one or other).path, one, other)  # type: ignore[union-attr]
        for one, other in _side_by_side(ours.facts, theirs.facts)
        if one != other
    )
    return ImageDiff(ours.start.removesuffix(":"), theirs.start.removesuffix(":"), changes)


def _facts(tree: Tree, *, content: bool, times: bool, ignore: list[str]) -> FactsOfTree:
    from .image_path import ImagePath
    from .mounted_image import MountedImage

    if isinstance(tree, (MountedImage, ImagePath)):
        return walk_facts(tree, content=content, times=times, ignore=ignore)
    saved = FactsOfTree(tree.start, iter(tree)) if isinstance(tree, Manifest) else read_facts(tree)
    # The same as if the tree were read now, whatever was asked for when the manifest was made.
    return FactsOfTree(saved.start, _reduced(saved.facts, content=content, times=times, ignore=ignore))


def _reduced(facts: Iterator[FileFacts], *, content: bool, times: bool, ignore: list[str]) -> Iterator[FileFacts]:
    skip = any_matcher(ignore)
    left_out: str | None = None
    for each in facts:
        if left_out is not None and each.path.startswith(left_out):
            continue
        left_out = f"{each.path}/" if each.path != "/" and skip(each.path) else None
        if left_out is not None:
            continue
        if not content and each.sha256 is not None:
            each = replace(each, sha256=None)
        if not times and each.mtime_ns is not None:
            each = replace(each, mtime_ns=None)
        yield each


def _side_by_side(
    left: Iterator[FileFacts], right: Iterator[FileFacts]
) -> Iterator[tuple[FileFacts | None, FileFacts | None]]:
    """The files of both, those of one path together."""
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and order(one) < order(other)):
            yield one, None
            one = next(left, None)
        elif one is None or order(other) < order(one):
            yield None, other
            other = next(right, None)
        else:
            yield one, other
            one, other = next(left, None), next(right, None)


def _collapsed(changes: Iterable[Change]) -> Iterator[tuple[Change, int]]:
    """The changes without those that came or went with a folder, and how many of these each has below it."""
    top: Change | None = None
    below = 0
    for each in changes:
        if top is not None and _is_below(each, top):
            below += 1
            continue
        if top is not None:
            yield top, below
        top, below = each, 0
    if top is not None:
        yield top, below


def _is_below(change: Change, top: Change) -> bool:
    """Whether it came or went with a folder: one that only one tree has is there with all that is in it."""
    went_with = top.left is None or top.right is None or top.left.type != top.right.type
    return went_with and change.path.startswith(f"{top.path}/")
