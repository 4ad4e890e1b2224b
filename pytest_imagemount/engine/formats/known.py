"""The image formats that are known, and which of them a file's content is.

Names are those of qemu's drivers. The name of the file takes no part: only its bytes do.

A magic number at the start decides. Two formats also have a trailer (a fixed-size VHD has nothing but that), and any
raw disk may end in the same bytes, by chance or because who filled the disk wished it. So a trailer alone decides only
when all of it is consistent, see :func:`.vhd.claims` and :func:`.dmg.claims`; and what it decides can do no
harm: neither kind, as accepted here, can name another file.

LUKS content is raw: the encrypted volume is what a mount of the disk finds, not a format of the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import FormatMismatch, RequestInvalid
from . import bochs, cloop, dmg, parallels, qcow, qcow2, vdi, vhd, vhdx, vmdk

if TYPE_CHECKING:
    from collections.abc import Callable

    from .content import Content

RAW = "raw"


@dataclass(frozen=True, slots=True)
class Format:
    """One image format.

    ``claims``: this content is of the format. ``admits``: it may be, when the caller says that it is.
    ``virtual_size``: checks the header and gives the virtual disk's size in bytes, 0 where only qemu can tell.
    ``why_not_written``: why qemu does not write to it, empty where it does.
    """

    name: str
    claims: Callable[[Content], bool]
    virtual_size: Callable[[Content], int]
    admits: Callable[[Content], bool]
    why_not_written: Callable[[Content], str]


@dataclass(frozen=True, slots=True)
class Found:
    """What a content is. ``virtual_size`` is in bytes, 0 where only qemu can tell."""

    format: str
    virtual_size: int
    why_not_written: str = ""


def _written(content: Content) -> str:
    return ""


def _only_read(content: Content) -> str:
    return "qemu reads this format and does not write it"


def _by_magic(
    name: str,
    claims: Callable[[Content], bool],
    virtual_size: Callable[[Content], int],
    why_not_written: Callable[[Content], str] = _written,
) -> Format:
    return Format(name, claims, virtual_size, admits=claims, why_not_written=why_not_written)


FORMATS = (
    _by_magic("qcow2", qcow2.claims, qcow2.virtual_size),
    _by_magic("qcow", qcow.claims_qcow, qcow.qcow_virtual_size),
    _by_magic("qed", qcow.claims_qed, qcow.qed_virtual_size),
    _by_magic("vmdk", vmdk.claims, vmdk.virtual_size, vmdk.why_not_written),
    _by_magic("vdi", vdi.claims, vdi.virtual_size),
    _by_magic("vhdx", vhdx.claims, vhdx.virtual_size),
    _by_magic("parallels", parallels.claims, parallels.virtual_size),
    _by_magic("bochs", bochs.claims, bochs.virtual_size, _only_read),
    _by_magic("cloop", cloop.claims, cloop.virtual_size, _only_read),
    Format("vpc", vhd.claims, vhd.virtual_size, admits=vhd.admits, why_not_written=_written),
    Format("dmg", dmg.claims, dmg.virtual_size, admits=dmg.admits, why_not_written=_only_read),
)
"""Every format but raw, in the order in which they are tried."""

KNOWN = (RAW, *(format.name for format in FORMATS))
ALIASES = {"img": RAW, "iso": RAW, "vhd": "vpc", "hdd": "parallels"}


def normalise(name: str) -> str:
    """qemu's driver name for the format that a caller called ``name``.

    :raises RequestInvalid: there is no such format
    """
    lower = name.lower()
    driver = ALIASES.get(lower, lower)
    if driver not in KNOWN:
        raise RequestInvalid(argument="format", value=repr(name), reason=f"unknown; known are {', '.join(KNOWN)}")
    return driver


def claimed_by(content: Content) -> str | None:
    """The format that the content bears the marks of; None is raw."""
    return next((format.name for format in FORMATS if format.claims(content)), None)


def detect(content: Content, wanted: str | None) -> Found:
    """The format of ``content``, after every check of its header.

    :param wanted: the format that the caller insists on, a driver name. ``raw`` fits any content: every file is some
        disk's bytes. Another must be borne out by the content.
    :raises FormatMismatch: the content is of another format than ``wanted``
    :raises ImageInvalid: the header is truncated, corrupt, or of features that are not known
    :raises ImageUnsafe: the image names another file, and ``content`` does not gather references
    """
    if wanted == RAW:
        return Found(RAW, content.size)
    if wanted is None:
        chosen = next((format for format in FORMATS if format.claims(content)), None)
        if chosen is None:
            return Found(RAW, content.size)
    else:
        chosen = next(format for format in FORMATS if format.name == wanted)
        if not chosen.admits(content):
            found = claimed_by(content) or RAW
            raise FormatMismatch(
                image=content.name,
                reason=f"format={wanted!r} was asked for, but the content is {found}",
                hint=f"leave format out, or say format={found!r}",
            )
    size = chosen.virtual_size(content)
    if size >= 1 << 63:
        raise content.corrupt(f"its {chosen.name} header gives a virtual size of {size} bytes, beyond what can be")
    return Found(chosen.name, size, chosen.why_not_written(content))
