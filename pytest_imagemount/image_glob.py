"""Listing trees of an image: glob and walk. No descriptor is open while a generator waits."""

from __future__ import annotations

import errno
import fnmatch
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .image_path import ImagePath

_NO_SUCH_FOLDER = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


def walk(
    top: ImagePath, *, top_down: bool, on_error: Callable[[OSError], object] | None, follow_symlinks: bool
) -> Iterator[tuple[ImagePath, list[str], list[str]]]:
    """See :meth:`ImagePath.walk`."""
    waiting: list[ImagePath | tuple[ImagePath, list[str], list[str]]] = [top]
    while waiting:
        item = waiting.pop()
        if isinstance(item, tuple):
            yield item
            continue
        try:
            entries = item.listing(follow_symlinks=follow_symlinks or item is top)
        except OSError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        folders: list[str] = []
        others: list[str] = []
        for entry in entries:
            followed = follow_symlinks and entry.is_link and (item / entry.name).is_dir()
            (folders if entry.is_folder or followed else others).append(entry.name)
        if top_down:
            yield item, folders, others
        else:
            waiting.append((item, folders, others))
        waiting.extend(item / name for name in reversed(folders))


class _How(NamedTuple):
    case_sensitive: bool
    recurse_symlinks: bool
    only_folders: bool


def glob(start: ImagePath, pattern: str, *, case_sensitive: bool, recurse_symlinks: bool) -> Iterator[ImagePath]:
    """See :meth:`ImagePath.glob`."""
    if not pattern:
        raise ValueError("an empty pattern matches nothing")
    if pattern.startswith("/"):
        raise NotImplementedError(f"pattern {pattern!r} must be relative to the folder that is searched")
    segments: list[str] = []
    for segment in pattern.split("/"):
        if segment not in ("", ".") and not segment == "**" == (segments or [""])[-1]:
            segments.append(segment)
    found = _select(start, segments, _How(case_sensitive, recurse_symlinks, pattern.endswith("/")))
    if pattern.endswith("/"):
        found = (path for path in found if path.is_dir())
    return _without_repeats(found) if segments.count("**") > 1 else found


def _select(
    folder: ImagePath, segments: list[str], how: _How, *, names: Iterable[str] | None = None
) -> Iterator[ImagePath]:
    """What the segments match below ``folder``; ``names`` is its listing where that was read already."""
    if not segments:
        if folder.exists(follow_symlinks=False):
            yield folder
        return
    first, rest = segments[0], segments[1:]
    if first == "**":
        yield from _select_deep(folder, rest, how)
    elif first == ".." or (how.case_sensitive and not set(first) & set("*?[")):
        yield from _select(folder / first, rest, how)
    else:
        matches = re.compile(fnmatch.translate(first), 0 if how.case_sensitive else re.IGNORECASE).match
        for name in _names(folder) if names is None else names:
            if matches(name):
                if rest:
                    yield from _select(folder / name, rest, how)
                else:
                    yield folder / name


def _select_deep(top: ImagePath, rest: list[str], how: _How) -> Iterator[ImagePath]:
    below = walk(top, top_down=True, on_error=_ignore_missing, follow_symlinks=how.recurse_symlinks)
    for folder, folders, others in below:
        if rest:
            yield from _select(folder, rest, how, names=sorted([*folders, *others]))
        else:
            yield folder
            if not how.only_folders:  # a link to a folder that is not followed is none of the folders below
                yield from (folder / name for name in others)


def _names(folder: ImagePath) -> list[str]:
    try:
        return [entry.name for entry in folder.listing()]
    except OSError as error:
        _ignore_missing(error)
        return []


def _ignore_missing(error: OSError) -> None:
    """Raise what is not just "no such folder": a folder that cannot be read must not pass for an empty one."""
    if error.errno not in _NO_SUCH_FOLDER:
        raise error


def _without_repeats(paths: Iterable[ImagePath]) -> Iterator[ImagePath]:
    seen = set()
    for path in paths:
        if path not in seen:
            seen.add(path)
            yield path
