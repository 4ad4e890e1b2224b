"""FileFacts: what an image says of one file, as a value that can be compared, and differences between two."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from .engine.text import printable
from .xattrs import capabilities_of, described, selinux_context_of

if TYPE_CHECKING:
    from collections.abc import Mapping

FileType = Literal["file", "dir", "link", "char", "block", "fifo", "socket"]

_NONE = "none"
_NOT_READ = "not read"
_DIGITS_SHOWN = 16
_OF_EVERY_TYPE = ("type", "mode", "owner", "group")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What an image says of one file.

    Two are equal when the files are: where the files are, and how the image's users are called, is shown and not
    compared, since an owner is a number to the kernel.

    :param start: what goes before ``path`` to tell people where it is: ``disk.qcow2 partition 2:``
    :param path: in the image, absolute; in a manifest it starts at the folder that the manifest is of
    :param type: in the words of mtree(5): ``file``, ``dir``, ``link``, ``char``, ``block``, ``fifo``, ``socket``
    :param mode: permission bits with set-user-ID and its like: 0 to 0o7777
    :param uid: number of the user; ``owner`` is the name by the image's ``/etc/passwd``, None where that has none
    :param gid: number of the group; ``group`` is the name by the image's ``/etc/group``
    :param size: bytes of a regular file; None for all else
    :param sha256: of a regular file's content, 64 hexadecimal digits; None for all else and where it was not asked for
    :param target: what a symbolic link says
    :param device: major and minor number of a device node
    :param xattrs: every extended attribute, by its full name
    :param mtime_ns: time of the last change in nanoseconds since 1970; None where it was not asked for
    """

    start: str = field(default="", compare=False)
    path: str = field(compare=False)
    type: FileType
    mode: int
    uid: int
    gid: int
    owner: str | None = field(default=None, compare=False)
    group: str | None = field(default=None, compare=False)
    size: int | None = None
    sha256: str | None = None
    target: str | None = None
    device: tuple[int, int] | None = None
    xattrs: Mapping[str, bytes] = field(default_factory=dict, hash=False)
    mtime_ns: int | None = None

    @property
    def capabilities(self) -> str:
        """As getcap prints them, ``cap_net_raw=ep``; empty where the file has none. ValueError: a broken attribute."""
        return capabilities_of(self.xattrs)

    @property
    def selinux_context(self) -> str | None:
        """``system_u:object_r:etc_t:s0``; None where the file has no label."""
        return selinux_context_of(self.xattrs)

    @property
    def label(self) -> str:
        """``disk.qcow2 partition 2:/etc/hostname``, without control characters."""
        return printable(self.start + self.path)

    def __str__(self) -> str:
        owner = f"{self.owner or self.uid}:{self.group or self.gid}"
        rest = [f" {printable(text)}" for text in (self._size_text(), self._device_text(), self._target_text()) if text]
        return f"{self.type} {self.mode:#o} {printable(owner)}{''.join(rest)}"

    def __repr__(self) -> str:
        return f"<FileFacts {self.label}: {self}>"

    def _size_text(self) -> str:
        return "" if self.size is None else f"{self.size} bytes"

    def _device_text(self) -> str:
        return "" if self.device is None else "{}, {}".format(*self.device)

    def _target_text(self) -> str:
        return "" if self.target is None else f"-> {self.target}"


class Difference(NamedTuple):
    """One fact that two files do not share, in words for people."""

    fact: str
    left: str
    right: str


def differences(left: FileFacts, right: FileFacts) -> list[Difference]:
    """The facts in which the two differ; empty exactly where they are equal.

    Of two files of different types those that only one type has are left out: a link has no size.
    """
    if left == right:
        return []
    ours, theirs = _described(left), _described(right)
    names = ours if left.type == right.type else _OF_EVERY_TYPE
    found = [Difference(name, ours[name][1], theirs[name][1]) for name in names if ours[name][0] != theirs[name][0]]
    for name in sorted({*left.xattrs, *right.xattrs}):
        one, other = left.xattrs.get(name), right.xattrs.get(name)
        if one != other:
            words = [(name, _NONE) if value is None else described(name, value) for value in (one, other)]
            fact = words[1][0] if one is None else words[0][0]
            found.append(Difference(fact, words[0][1], words[1][1]))
    return found


def _described(facts: FileFacts) -> dict[str, tuple[object, str]]:
    """Each fact but extended attributes: what is compared, and how it is shown."""
    return {
        "type": (facts.type, facts.type),
        "mode": (facts.mode, f"{facts.mode:#o}"),
        "owner": (facts.uid, _account(facts.owner, facts.uid)),
        "group": (facts.gid, _account(facts.group, facts.gid)),
        "size": (facts.size, facts._size_text() or _NONE),
        "sha256": (facts.sha256, _digest(facts)),
        "target": (facts.target, printable(facts.target) if facts.target is not None else _NONE),
        "device": (facts.device, facts._device_text() or _NONE),
        "mtime": (facts.mtime_ns, _NOT_READ if facts.mtime_ns is None else _time(facts.mtime_ns)),
    }


def _account(name: str | None, number: int) -> str:
    return f"{number}" if name is None else f"{printable(name)} ({number})"


def _digest(facts: FileFacts) -> str:
    if facts.sha256 is None:
        return _NOT_READ if facts.type == "file" else _NONE
    return f"{facts.sha256[:_DIGITS_SHOWN]}…"


def _time(nanoseconds: int) -> str:
    """ISO 8601 in UTC with nine digits of a second; a year that Python's calendar lacks stays a number of seconds."""
    seconds, rest = divmod(nanoseconds, 10**9)
    try:
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09}Z"
    except (ValueError, OverflowError, OSError):
        return f"{seconds}.{rest:09}"
