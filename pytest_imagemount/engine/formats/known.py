"""The image formats that are known, and which of them a file's content is.

Names are those of qemu's drivers. The name of the file takes no part: only its bytes do.

A magic number at the start decides. Two formats also have a trailer (a fixed-size VHD has nothing but that), and any
raw disk may end in the same bytes, by chance or because who filled the disk wished it. So a trailer alone decides only
when all of it is consistent, see :func:`.vhd.claims_vpc` and :func:`.others.claims_dmg`; and what it
decides can do no harm: neither kind, as accepted here, can name another file.

LUKS content is raw: the encrypted volume is what a mount of the disk finds, not a format of the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import FormatMismatch, RequestInvalid
from . import others as format_others
from . import qcow as format_qcow
from . import qcow2 as format_qcow2
from . import vhd as format_vhd
from . import vmdk as format_vmdk

if TYPE_CHECKING:
    from collections.abc import Callable

    from .content import Content

RAW = "raw"


@dataclass(frozen=True, slots=True)
class Format:
    """One image format.

    ``claims``: this content is of the format. ``admits``: it may be, when the caller says that it is.
    ``virtual_size``: checks the header and gives the virtual disk's size in bytes, 0 where only qemu can tell.
    """

    name: str
    claims: Callable[[Content], bool]
    virtual_size: Callable[[Content], int]
    admits: Callable[[Content], bool]


def _by_magic(name: str, claims: Callable[[Content], bool], virtual_size: Callable[[Content], int]) -> Format:
    return Format(name, claims, virtual_size, admits=claims)


FORMATS = (
    _by_magic("qcow2", format_qcow2.claims, format_qcow2.virtual_size),
    _by_magic("qcow", format_qcow.claims_qcow, format_qcow.qcow_virtual_size),
    _by_magic("qed", format_qcow.claims_qed, format_qcow.qed_virtual_size),
    _by_magic("vmdk", format_vmdk.claims, format_vmdk.virtual_size),
    _by_magic("vdi", format_others.claims_vdi, format_others.vdi_virtual_size),
    _by_magic("vhdx", format_vhd.claims_vhdx, format_vhd.vhdx_virtual_size),
    _by_magic("parallels", format_others.claims_parallels, format_others.parallels_virtual_size),
    _by_magic("bochs", format_others.claims_bochs, format_others.bochs_virtual_size),
    _by_magic("cloop", format_others.claims_cloop, format_others.cloop_virtual_size),
    Format("vpc", format_vhd.claims_vpc, format_vhd.vpc_virtual_size, admits=format_vhd.admits_vpc),
    Format("dmg", format_others.claims_dmg, format_others.dmg_virtual_size, admits=format_others.admits_dmg),
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


def detect(content: Content, wanted: str | None) -> tuple[str, int]:
    """The format of ``content`` and the virtual disk's size in bytes (0: only qemu can tell).

    :param wanted: the format that the caller insists on, a driver name. ``raw`` fits any content: every file is some
        disk's bytes. Another must be borne out by the content.
    :raises FormatMismatch: the content is of another format than ``wanted``
    :raises ImageInvalid: the header is truncated, corrupt, or of features that are not known
    :raises ImageUnsafe: the image names another file
    """
    if wanted == RAW:
        return RAW, content.size
    if wanted is None:
        chosen = next((format for format in FORMATS if format.claims(content)), None)
        if chosen is None:
            return RAW, content.size
    else:
        chosen = next(format for format in FORMATS if format.name == wanted)
        if not chosen.admits(content):
            found = next((format.name for format in FORMATS if format.claims(content)), RAW)
            raise FormatMismatch(
                image=content.name,
                reason=f"format={wanted!r} was asked for, but the content is {found}",
                hint=f"leave format out, or say format={found!r}",
            )
    size = chosen.virtual_size(content)
    if size >= 1 << 63:
        raise content.corrupt(f"its {chosen.name} header gives a virtual size of {size} bytes, beyond what can be")
    return chosen.name, size
