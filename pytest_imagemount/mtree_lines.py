"""Facts of files as lines of mtree(5), which other programs read too: one file a line, ASCII alone, in one order.

``./etc/hostname type=file mode=0644 uid=0 gid=0 uname=root gname=root size=6 sha256digest=…``. Names and values have
everything but plain letters, digits and punctuation as ``\\ooo``, a byte each (vis(3)). Extended attributes are
``xattr.NAME=BASE64``, as gomtree writes them; ``time`` has nine digits behind the point.
"""

from __future__ import annotations

import base64
import os
import re
from typing import TYPE_CHECKING, get_args

from .file_facts import FileFacts, FileType

if TYPE_CHECKING:
    from collections.abc import Iterator

# Besides what would end a word, the characters of patterns: some programs take the names for such.
_TO_ESCAPE = re.compile(rb"[^!-~]|[\\#=*?\[\]]")
_IS_PLAIN = re.compile(r"[!\"$-)+-<>@-Z^-~]*").fullmatch
_ESCAPED = re.compile(rb"\\([0-3][0-7][0-7])")
_TYPES: tuple[str, ...] = get_args(FileType)
_XATTR = "xattr."


def encode(facts: FileFacts) -> str:
    """The line, without its end."""
    return " ".join([escape(f".{facts.path.rstrip('/')}"), *_words(facts)])


def decode(line: str, start: str) -> FileFacts:
    """The facts in a line that :func:`encode` made.

    :param start: what the facts have as such: lines do not say it
    :raises ValueError: it is none
    """
    path, *words = line.split(" ")
    if path != "." and not path.startswith("./"):
        raise ValueError(f"it starts with {path!r}, and not with a path as ./etc/hostname")
    values: dict[str, str] = {}
    xattrs: dict[str, bytes] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key in values:
            raise ValueError(f"{word!r} is no word of the form KEY=VALUE, or a second one of its key")
        if key.startswith(_XATTR):
            xattrs[unescape(key.removeprefix(_XATTR))] = base64.b64decode(value, validate=True)
        else:
            values[key] = value
    facts = _facts(unescape(path)[1:] or "/", start, values, xattrs)
    if values:
        raise ValueError(f"{next(iter(values))!r} is no key that is known here")
    return facts


def _words(facts: FileFacts) -> Iterator[str]:
    yield f"type={facts.type} mode={facts.mode:04o} uid={facts.uid} gid={facts.gid}"
    if facts.owner is not None:
        yield f"uname={escape(facts.owner)}"
    if facts.group is not None:
        yield f"gname={escape(facts.group)}"
    if facts.size is not None:
        yield f"size={facts.size}"
    if facts.sha256 is not None:
        yield f"sha256digest={facts.sha256}"
    if facts.target is not None:
        yield f"link={escape(facts.target)}"
    if facts.device is not None:
        yield "device=native,{},{}".format(*facts.device)
    if facts.mtime_ns is not None:
        yield f"time={facts.mtime_ns // 10**9}.{facts.mtime_ns % 10**9:09}"
    for name, value in sorted(facts.xattrs.items()):
        yield f"{_XATTR}{escape(name)}={base64.b64encode(value).decode()}"


def _facts(path: str, start: str, values: dict[str, str], xattrs: dict[str, bytes]) -> FileFacts:
    """The facts; what is known here is taken out of ``values``."""

    def take(key: str) -> str:
        if key not in values:
            raise ValueError(f"there is no {key}=")
        return values.pop(key)

    kind = take("type")
    if kind not in _TYPES:
        raise ValueError(f"type {kind!r} is none of {', '.join(_TYPES)}")
    owner, group, target = (values.pop(key, None) for key in ("uname", "gname", "link"))
    device, time = values.pop("device", None), values.pop("time", None)
    return FileFacts(
        start=start,
        path=path,
        type=kind,  # type: ignore[arg-type]
        mode=int(take("mode"), 8),
        uid=int(take("uid")),
        gid=int(take("gid")),
        owner=None if owner is None else unescape(owner),
        group=None if group is None else unescape(group),
        size=int(take("size")) if kind == "file" else None,
        sha256=values.pop("sha256digest", None),
        target=None if target is None else unescape(target),
        device=None if device is None else _device(device),
        xattrs=xattrs,
        mtime_ns=None if time is None else _time(time),
    )


def _device(text: str) -> tuple[int, int]:
    form, major, minor = text.split(",")
    if form != "native":
        raise ValueError(f"device {text!r} is not native,MAJOR,MINOR")
    return int(major), int(minor)


def _time(text: str) -> int:
    seconds, rest = text.split(".")
    if len(rest) != 9:
        raise ValueError(f"time {text!r} has not nine digits behind the point")
    return int(seconds) * 10**9 + int(rest)


def escape(text: str) -> str:
    """The text as one word: all but plain letters, digits and punctuation as ``\\ooo``."""
    if _IS_PLAIN(text):
        return text
    return _TO_ESCAPE.sub(lambda match: b"\\%03o" % match[0][0], os.fsencode(text)).decode("ascii")


def unescape(text: str) -> str:
    """The text of a word that :func:`escape` made."""
    if "\\" not in text:
        return text
    return os.fsdecode(_ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), text.encode("ascii")))
