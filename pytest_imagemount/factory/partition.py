"""What one partition is to be, as the caller says it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from ..errors import RequestInvalid
from .content import content_tree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from .content import Content

_GPT_NAME_LIMIT = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One partition of an image.

    - ``fstype``: ``ext2``, ``ext3``, ``ext4``, ``vfat``, ``xfs``, ``btrfs``, ``squashfs``, ``erofs``, ``swap``, or
      None for a partition of zeros, or of the bytes ``raw``.
    - ``size``, ``start``: bytes, or text with a binary unit (``"64M"``). Without them the partition is as large as its
      content needs and begins at the next MiB.
    - ``content``, ``label``, ``fs_uuid``: of the file system. ``mkfs_options`` are given to its mkfs as they are.
    - ``type``: a GPT type UUID or name (``"esp"``, ``"root-x86-64"``), or the type byte in an MBR.
    - ``name``, ``uuid``, ``attributes``: PARTLABEL, PARTUUID and the 64 attribute bits, in a GPT.
    - ``bootable``: the active flag, in an MBR.
    """

    fstype: str | None = None
    size: int | str | None = None
    start: int | str | None = None
    content: Content | None = None
    raw: bytes | None = None
    label: str | None = None
    fs_uuid: str | UUID | None = None
    mkfs_options: Sequence[str] = ()
    type: str | int | UUID | None = None
    name: str | None = None
    uuid: str | UUID | None = None
    attributes: int = 0
    bootable: bool = False

    @classmethod
    def of(cls, value: Partition | Mapping[str, object]) -> Partition:
        """``value`` itself, or the partition with the fields that it maps.

        :raises RequestInvalid: it has a key that is no field
        """
        if isinstance(value, Partition):
            return value
        known = [field.name for field in fields(cls)]
        unknown = [str(key) for key in value if key not in known]
        if unknown:
            reason = f"a partition has: {', '.join(known)}"
            raise RequestInvalid(argument="partitions", value=", ".join(unknown), reason=reason)
        return cls(**value)  # type: ignore[arg-type]

    def check(self, table: str | None) -> None:
        """Return when these fields make sense together and in ``table`` (``"gpt"``, ``"mbr"``, None for no table).

        :raises RequestInvalid: they do not
        """
        if self.raw is not None and self.fstype is not None:
            raise RequestInvalid(argument="raw", value="…", reason="give either raw bytes or an fstype")
        if self.fstype is None:
            _refuse("needs an fstype", content=self.content, label=self.label, fs_uuid=self.fs_uuid)
            if self.raw is None and self.size is None:
                reason = "without fstype and raw bytes the size must be given, such as '64M'"
                raise RequestInvalid(argument="size", value="None", reason=reason)
        if table != "mbr":
            _refuse("needs table='mbr'; in a GPT give attributes=4", bootable=self.bootable or None)
        if table != "gpt":
            _refuse("needs table='gpt'", name=self.name, uuid=self.uuid, attributes=self.attributes or None)
        if not 0 <= self.attributes < 2**64:
            raise RequestInvalid(argument="attributes", value=str(self.attributes), reason="is not of 64 bits")
        if len((self.name or "").encode("utf-16-le")) > 2 * _GPT_NAME_LIMIT:
            reason = f"a partition name has at most {_GPT_NAME_LIMIT} characters"
            raise RequestInvalid(argument="name", value=repr(self.name), reason=reason)

    def describe(self) -> str:
        """Everything that the bytes of this partition follow from, as text."""
        large = {
            "content": content_tree(self.content).digest(),
            "raw": hashlib.sha256(self.raw or b"").hexdigest(),
            "mkfs_options": list(self.mkfs_options),
        }
        return repr({**{field.name: getattr(self, field.name) for field in fields(self)}, **large})


def _refuse(reason: str, **given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise RequestInvalid(argument=name, value=repr(value), reason=reason)
