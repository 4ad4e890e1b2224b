"""``files``: what is at a path, or at every path that a pattern matches."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from ..engine.text import printable
from .content import content_problems
from .problem import Problem
from .values import kind_of, parse_mode, parse_size, show_list, show_mode, show_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..image_path import ImagePath
    from ..shared_images import SharedImage
    from .plan import Check

MOST_MATCHES = 20
"""So many files are listed where none was to be; the rest is counted."""

_OF_NAME = {"state", "type", "link", "count"}
"""What is about the name itself; all else is about what a link points at."""

_CONTENT = {"contains", "not-contains", "matches", "not-matches", "text", "sha256"}


def check_files(check: Check, shared: SharedImage) -> Iterator[Problem]:
    """The problems of one entry of ``files``."""
    start = shared.image / "/"
    pattern = is_pattern(check.subject)
    paths = list(start.glob(check.subject.lstrip("/"))) if pattern else [start / check.subject]
    if not pattern:
        paths = [path for path in paths if path.exists(follow_symlinks=False)]
    if check.expect.get("state") == "absent":
        yield from _present(check, paths, pattern=pattern)
        return
    if "count" in check.expect and len(paths) != check.expect["count"]:
        found = f"{len(paths)}" + (f": {_some(paths)}" if paths else "")
        yield Problem("count", check.text("count"), found)
    elif not paths and check.expect.get("count") != 0:
        yield Problem("state", "exists", _nothing_there(start, check.subject, pattern=pattern))
    for path in paths:
        yield from _file_problems(check, path, str(path) if pattern else "")


def is_pattern(subject: str) -> bool:
    """Whether the path is a pattern: ``/usr/bin/[`` is a program."""
    return "*" in subject or "?" in subject or ("[" in subject and "]" in subject)


def _present(check: Check, paths: list[ImagePath], *, pattern: bool) -> Iterator[Problem]:
    for path in paths[:MOST_MATCHES]:
        status = path.lstat()
        found = f"a {kind_of(status.st_mode)}"
        if stat.S_ISLNK(status.st_mode):
            found += f" to {path.readlink()}"
        elif stat.S_ISREG(status.st_mode):
            found += f" of {show_size(status.st_size)}"
        yield Problem("state", "absent", found, str(path) if pattern else "")
    if len(paths) > MOST_MATCHES:
        yield Problem("state", "absent", f"and {len(paths) - MOST_MATCHES} more", "…")


def _nothing_there(start: ImagePath, subject: str, *, pattern: bool) -> str:
    """``nothing``, and how far the path leads."""
    if pattern:
        return "no file that matches"
    above = (start / subject).parent
    while not above.exists(follow_symlinks=False):
        above = above.parent
    return "nothing there" if above == (start / subject).parent else f"nothing there; only {above} is"


def _file_problems(check: Check, path: ImagePath, shown: str) -> Iterator[Problem]:
    status = path.lstat()
    is_link = stat.S_ISLNK(status.st_mode)
    target = str(path.readlink()) if is_link else ""
    if "type" in check.expect and check.text("type") != kind_of(status.st_mode):
        yield Problem("type", check.text("type"), _type_text(path, status.st_mode, target), shown)
    if "link" in check.expect and check.text("link") != target:
        found = f"a link to {target}" if is_link else f"no link, but a {kind_of(status.st_mode)}"
        yield Problem("link", check.text("link"), found, shown)
    wanted = [key for key in check.expect if key not in _OF_NAME]
    if not wanted:
        return
    if is_link and not path.exists():
        found = f"a link to {target}, which is not in the image"
        yield Problem(wanted[0], check.text(wanted[0]), found, shown)
        return
    for key in wanted:
        if key in _QUESTIONS:
            yield from _QUESTIONS[key](check, path, shown)
    if _CONTENT & set(wanted):
        yield from content_problems(check, path, shown)


def _type_text(path: ImagePath, mode: int, target: str) -> str:
    if not target:
        return kind_of(mode)
    behind = f"a {kind_of(path.stat().st_mode)}" if path.exists() else "nothing in the image"
    return f"link to {target}, which is {behind}"


def _mode(check: Check, path: ImagePath, shown: str) -> Iterator[Problem]:
    mode, wanted = path.stat().st_mode, parse_mode(check.text("mode"))
    if stat.S_IMODE(mode) != wanted:
        yield Problem("mode", f"{wanted:04o}", show_mode(mode), shown)


def _max_mode(check: Check, path: ImagePath, shown: str) -> Iterator[Problem]:
    mode, most = path.stat().st_mode, parse_mode(check.text("max-mode")) or 0
    if excess := stat.S_IMODE(mode) & ~most:
        yield Problem("max-mode", f"nothing beyond {most:04o}", f"{show_mode(mode)}, {excess:04o} too much", shown)


def _account(key: str) -> Callable[[Check, ImagePath, str], Iterator[Problem]]:
    def ask(check: Check, path: ImagePath, shown: str) -> Iterator[Problem]:
        wanted, status = check.text(key), path.stat()
        number = str(status.st_uid if key == "owner" else status.st_gid)
        if wanted == number:
            return
        try:
            name = path.owner() if key == "owner" else path.group()
        except (KeyError, FileNotFoundError):
            yield Problem(key, wanted, f"{number}, which the image gives no name", shown)
            return
        if wanted != name:
            yield Problem(key, wanted, f"{name} ({number})", shown)

    return ask


def _size(key: str) -> Callable[[Check, ImagePath, str], Iterator[Problem]]:
    def ask(check: Check, path: ImagePath, shown: str) -> Iterator[Problem]:
        found = path.stat().st_size
        yield from size_problems(check, key, found, shown)

    return ask


def size_problems(check: Check, key: str, found: int, shown: str = "") -> Iterator[Problem]:
    """The problem of ``found`` bytes with an exact size, a least or a greatest one, if it is expected."""
    if key not in check.expect:
        return
    wanted = parse_size(check.expect[key])
    if key.startswith("min") and found < wanted:
        yield Problem(key, f"at least {show_size(wanted)}", show_size(found), shown)
    elif key.startswith("max") and found > wanted:
        yield Problem(key, f"at most {show_size(wanted)}", show_size(found), shown)
    elif key == "size" and found != wanted:
        yield Problem(key, show_size(wanted), show_size(found), shown)


def _capabilities(check: Check, path: ImagePath, shown: str) -> Iterator[Problem]:
    wanted = check.text("capabilities")
    found = path.capabilities() or "none"
    if _clauses(wanted) != _clauses(found):
        yield Problem("capabilities", wanted, found, shown)


def _clauses(text: str) -> set[tuple[frozenset[str], str]]:
    """``cap_a,cap_b=ep`` without regard to order; ``+`` is the same as ``=`` for those that getcap of old printed."""
    found = set()
    for clause in text.lower().replace("+", "=").split():
        names, _, flags = clause.partition("=")
        found.add((frozenset(names.split(",")), "".join(sorted(flags))))
    return found


def _selinux(check: Check, path: ImagePath, shown: str) -> Iterator[Problem]:
    wanted, found = check.text("selinux"), path.selinux_context() or "none"
    if wanted != found:
        yield Problem("selinux", wanted, found, shown)


def _xattrs(check: Check, path: ImagePath, shown: str) -> Iterator[Problem]:
    from .document import written

    attributes = path.xattrs()
    for name, value in check.expect["xattrs"].items():
        wanted = written(value)
        if name not in attributes:
            yield Problem(f"xattr {name}", wanted, f"not there; there are: {show_list(attributes)}", shown)
        elif attributes[name] not in (wanted.encode(), wanted.encode() + b"\0"):
            found = attributes[name].decode("utf-8", "backslashreplace")
            yield Problem(f"xattr {name}", wanted, printable(found), shown)


def _no_xattrs(check: Check, path: ImagePath, shown: str) -> Iterator[Problem]:
    attributes = path.xattrs()
    for name in check.texts("no-xattrs"):
        if name in attributes:
            found = attributes[name].decode("utf-8", "backslashreplace")
            yield Problem(f"xattr {name}", "absent", printable(found), shown)


def _some(paths: list[ImagePath]) -> str:
    rest = f" and {len(paths) - MOST_MATCHES} more" if len(paths) > MOST_MATCHES else ""
    return ", ".join(str(path) for path in paths[:MOST_MATCHES]) + rest


_QUESTIONS: dict[str, Callable[[Check, ImagePath, str], Iterator[Problem]]] = {
    "mode": _mode,
    "max-mode": _max_mode,
    "owner": _account("owner"),
    "group": _account("group"),
    "size": _size("size"),
    "min-size": _size("min-size"),
    "max-size": _size("max-size"),
    "capabilities": _capabilities,
    "selinux": _selinux,
    "xattrs": _xattrs,
    "no-xattrs": _no_xattrs,
}
