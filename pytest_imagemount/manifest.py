"""Manifest: every file of an image with its facts, as a value that can be compared, written to a file and read back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import mtree_lines
from .errors import ManifestInvalid
from .path_pattern import any_matcher

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from .file_facts import FileFacts
    from .image_path import ImagePath
    from .mounted_image import MountedImage

_HEADER = "#mtree\n"
_HEADER_LIMIT = 1 << 14  # bytes: it may be any file
_START = "# pytest-imagemount manifest of "


class Manifest:
    """Every file of an image, or of a folder of it, with its facts, in one order.

    ``assert image_a.manifest() == image_b.manifest()`` shows what differs; :func:`~pytest_imagemount.diff` gives that
    as an object. A manifest outlives the mount. It holds a line of text for each file (:mod:`.mtree_lines`), about 200
    bytes; :func:`walk_facts` gives the same facts one by one and holds none of them.

    :param start: where the paths of the facts start, as ``disk.qcow2 partition 2:`` or ``disk.raw:/etc``
    """

    __slots__ = ("_lines", "start")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, start: str, facts: Iterable[FileFacts]) -> None:
        self.start = start
        self._lines = tuple(map(mtree_lines.encode, facts))

    @classmethod
    def of(
        cls, tree: MountedImage | ImagePath, *, content: bool = True, times: bool = False, ignore: Iterable[str] = ()
    ) -> Manifest:
        """The manifest of a mounted image, or of a folder in one; the arguments are those of :func:`walk_facts`."""
        start, facts = walk_facts(tree, content=content, times=times, ignore=ignore)
        return cls(start, facts)

    @classmethod
    def read(cls, file: str | os.PathLike[str]) -> Manifest:
        """The manifest that :meth:`write` has written.

        :raises ManifestInvalid: it is none, or was changed to what is none
        """
        start, facts = read_facts(file)
        return cls(start, facts)

    def write(self, file: str | os.PathLike[str]) -> None:
        """Write it to a text file of this machine, in the form of mtree(5)."""
        with Path(file).open("w", encoding="ascii", newline="\n") as text:
            text.write(f"{_HEADER}{_START}{mtree_lines.escape(self.start)}\n")
            text.writelines(f"{line}\n" for line in self._lines)

    def __iter__(self) -> Iterator[FileFacts]:
        return (mtree_lines.decode(line, self.start) for line in self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Manifest):
            return NotImplemented
        if self._lines == other._lines:
            return True
        # The lines have the names of users too, which are not compared.
        pairs = zip(self, other, strict=False)
        return len(self) == len(other) and all(ours.path == theirs.path and ours == theirs for ours, theirs in pairs)

    def __repr__(self) -> str:
        return f"<Manifest of {self.start.removesuffix(':')}, {len(self)} files>"


class FactsOfTree(NamedTuple):
    """A stream of facts, in the order of a manifest; ``start`` is where their paths start."""

    start: str
    facts: Iterator[FileFacts]


def walk_facts(
    tree: MountedImage | ImagePath, *, content: bool = True, times: bool = False, ignore: Iterable[str] = ()
) -> FactsOfTree:
    """The facts of every file, one by one: folders before what is in them, names sorted, in bounded memory.

    Links are not followed, devices and FIFOs not opened. Paths start at the folder that is walked, which is ``/``.

    :param content: read regular files for their SHA-256
    :param times: the times of the last change are facts too
    :param ignore: patterns of paths to leave out with all below them, as ``"/var/log/**"`` or ``"/etc/machine-id"``
    :raises OSError: of the first file that cannot be read; ESTALE where the tree changed meanwhile
    """
    from .facts_reader import facts_below
    from .image_path import ImagePath

    top = tree if isinstance(tree, ImagePath) else tree / "/"
    facts = facts_below(top, content=content, times=times, skip=any_matcher(ignore))
    return FactsOfTree(top.label.removesuffix("/"), facts)


def read_facts(file: str | os.PathLike[str]) -> FactsOfTree:
    """The facts in a file that :meth:`Manifest.write` has written, one by one.

    :raises ManifestInvalid: it is none, here or when the line that is wrong comes
    """
    with Path(file).open("rb") as lines:
        first, second = lines.readline(_HEADER_LIMIT), lines.readline(_HEADER_LIMIT)
    if first != _HEADER.encode():
        reason = f"a saved manifest starts with {_HEADER.strip()!r} (an image has to be mounted first)"
        raise ManifestInvalid(file=str(file), line=1, reason=reason)
    if not second.startswith(_START.encode()) or not second.isascii():
        raise ManifestInvalid(file=str(file), line=2, reason=f"it is not {_START.strip()!r} and a name")
    start = mtree_lines.unescape(second.decode().removeprefix(_START).removesuffix("\n"))
    return FactsOfTree(start, _facts_in(file, start))


def _facts_in(file: str | os.PathLike[str], start: str) -> Iterator[FileFacts]:
    previous: list[str] = []
    with Path(file).open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if number <= 2:
                continue
            try:
                facts = mtree_lines.decode(line.decode("ascii").removesuffix("\n"), start)
            except ValueError as error:
                raise ManifestInvalid(file=str(file), line=number, reason=str(error)) from None
            key = order(facts)
            if key <= previous:
                raise ManifestInvalid(file=str(file), line=number, reason="it is not in order, or there twice")
            previous = key
            yield facts


def order(facts: FileFacts) -> list[str]:
    """What the files of a manifest are sorted by: a folder, then all below it, then what follows the folder."""
    return facts.path.rstrip("/").split("/")
