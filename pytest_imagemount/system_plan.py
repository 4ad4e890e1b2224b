"""How an installed system puts its file systems together: from its fstab, and from the types of its partitions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from .contents.fstab import FstabEntry

FSTAB: Final = "fstab"
DISCOVERED: Final = "partition type"

# Where the Discoverable Partitions Specification (UAPI.2) and systemd-gpt-auto-generator(8) mount each role.
_PLACES = {"usr": "/usr", "home": "/home", "srv": "/srv", "var": "/var", "tmp": "/var/tmp"}

PLACES = (*_PLACES.values(), "/boot", "/efi")
"""Every place where a partition may go by its type."""

_IDENTITY = re.compile(r"""(UUID|LABEL|PARTUUID|PARTLABEL)=(["']?)(.+)\2""", re.DOTALL)
_BY = re.compile(r"/dev/disk/by-(uuid|label|partuuid|partlabel)/(.+)", re.DOTALL)
_MAPPED = re.compile(r"/dev/(?:mapper/|disk/by-id/dm-name-)((?:[^/-]|--)+)-((?:[^/-]|--)+)")
_OF_GROUP = re.compile(r"/dev/(?!disk/|mapper/|block/|md/)([^/]+)/([^/]+)")
_NODE = re.compile(r"/dev/(?:((?:[shv]|xv)d[a-z]+)|(nvme\d+n\d+|mmcblk\d+)p)(\d+)")
_FIRST_DISK = re.compile(r"(?:[shv]|xv)da|nvme0n1|mmcblk\d+")  # where an SD card is mmcblk1, it is so by the board

# Types that are no file system of the image's own.
_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ceph",
    "glusterfs",
    "sshfs",
    "9p",
    "virtiofs",
    "afs",
    "ocfs2",
    "gfs2",
}
_PSEUDO = {
    "proc",
    "sysfs",
    "tmpfs",
    "devtmpfs",
    "devpts",
    "ramfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
}
_PSEUDO |= {
    "efivarfs",
    "hugetlbfs",
    "mqueue",
    "configfs",
    "fusectl",
    "bpf",
    "pstore",
    "usbfs",
    "overlay",
    "autofs",
    "none",
}

# Options that decide what files look like; all others tune the running system or are decided by mode=.
_KEPT = {"umask", "fmask", "dmask", "uid", "gid", "iocharset", "codepage", "shortname", "utf8", "nls", "noexec"}


@dataclass(frozen=True, slots=True)
class Submount:
    """One file system below the root.

    :param target: absolute, as in the system: ``/boot/efi``
    :param partition: as for :meth:`.session.MountSession.mount`; None is the image itself
    :param optional: the system boots without it (``nofail``)
    :param origin: :data:`FSTAB` or :data:`DISCOVERED`
    :param of_root: it is the root's own file system, wherever that is; ``partition`` says nothing
    """

    target: str
    partition: int | str | None
    fstype: str | None = None
    options: tuple[str, ...] = ()
    subvolume: str | None = None
    optional: bool = False
    origin: str = FSTAB
    of_root: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that is not mounted, and why."""

    source: str
    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class SystemPlan:
    """``submounts`` in the order of mounting: each after the one it lies in."""

    submounts: tuple[Submount, ...]
    skipped: tuple[Skipped, ...]


def plan_system(
    entries: Sequence[FstabEntry],
    roles: Mapping[str, int],
    identities: Mapping[int, Collection[str]],
    *,
    root: int | None,
    folders: Collection[str],
    encrypted: Collection[str] = (),
) -> SystemPlan:
    """What is mounted where.

    fstab comes first, in its order; of several lines with one mount point the first counts, as it does for
    systemd-fstab-generator(8). What fstab does not mention is placed by partition type, as
    systemd-gpt-auto-generator(8) does: the ESP at ``/efi``, or at ``/boot`` where there is no such folder and nothing
    else belongs there.

    :param entries: of the system's fstab; empty where it has none
    :param roles: role of the Discoverable Partitions Specification → partition number
    :param identities: partition number → what fstab may call it, as ``UUID=…``; to see which ones fstab mentions
    :param root: number of the root's partition, None where the image itself is the root
    :param folders: which of the places of the specification (``/efi``, ``/home``, …) are folders of the root
    :param encrypted: devices, as ``/dev/mapper/NAME``, that crypttab(5) makes
    """
    submounts: list[Submount] = []
    skipped: list[Skipped] = []
    places: set[str] = set()
    used = {root}
    root_source = next((entry.source for entry in entries if _normal(entry.target) == "/"), "")
    for entry in entries:
        found = _from_fstab(entry, root_source, encrypted)
        if isinstance(found, Skipped):
            skipped.append(found)
        elif found is not None and found.target in places:
            skipped.append(Skipped(entry.source, entry.target, "a line before it has the same mount point"))
        elif found is not None:
            submounts.append(found)
            places.add(found.target)
        if not _on_another_disk(entry.source, root_source):
            used |= _numbers_of(entry.source, identities)
    taken = places | {entry.target.rstrip("/") for entry in entries}
    for place, role in _places(roles, taken, folders):
        if roles[role] not in used:
            submounts.append(Submount(place, roles[role], origin=DISCOVERED))
    ordered = sorted(enumerate(submounts), key=lambda pair: (len(PurePosixPath(pair[1].target).parts), pair[0]))
    return SystemPlan(tuple(submount for _, submount in ordered), tuple(skipped))


def _places(roles: Mapping[str, int], taken: Collection[str], folders: Collection[str]) -> Iterable[tuple[str, str]]:
    for role, place in _PLACES.items():
        if role in roles and place in folders and place not in taken:
            yield place, role
    boot_is_free = "/boot" in folders and "/boot" not in taken
    if "xbootldr" in roles and boot_is_free:
        yield "/boot", "xbootldr"
        boot_is_free = False
    if "esp" in roles and not {"/efi", "/boot/efi"} & set(taken):
        if "/efi" in folders:
            yield "/efi", "esp"
        elif boot_is_free:
            yield "/boot", "esp"


def _from_fstab(entry: FstabEntry, root_source: str, encrypted: Collection[str]) -> Submount | Skipped | None:
    """The mount of one line; None for the root itself, and for what is no mount of the image's."""
    target = _normal(entry.target)
    if target == "/":
        return None
    if reason := _not_mounted(entry, target):
        return Skipped(entry.source, entry.target, reason)
    assert target is not None
    partition = selector(entry.source)
    if _on_another_disk(entry.source, root_source):
        return Skipped(entry.source, entry.target, "it is on another disk")
    # Whatever that device is, the root's file system is on it: a disk, an array, what is encrypted.
    of_root = entry.source == root_source and (partition is None or entry.source in encrypted)
    if entry.source in encrypted and not of_root:
        return Skipped(entry.source, entry.target, "it is encrypted, and /etc/crypttab is not followed")
    if partition is None and not of_root:
        return Skipped(entry.source, entry.target, "which partition of the image this device is cannot be told")
    options = dict(option.partition("=")[::2] for option in entry.options)
    # With a path as well the number says nothing more, and numbers change when a system is copied.
    kept_names = _KEPT if "subvol" in options else _KEPT | {"subvolid"}
    kept = tuple(option for option in entry.options if option.partition("=")[0] in kept_names)
    subvolume = options["subvol"].strip("/") or None if "subvol" in options else None
    fstype = None if entry.fstype in ("auto", "") or "," in entry.fstype else entry.fstype
    return Submount(target, partition, fstype, kept, subvolume, optional="nofail" in options, of_root=of_root)


def _not_mounted(entry: FstabEntry, target: str | None) -> str:
    if entry.fstype == "swap" or entry.target in ("none", "swap"):
        return "swap"
    if target is None:
        return "its mount point is not an absolute path without '..'"
    if "noauto" in entry.options:
        return "noauto"
    if entry.fstype in _NETWORK or "_netdev" in entry.options or entry.fstype.startswith("fuse."):
        return "network"
    if entry.fstype in _PSEUDO and selector(entry.source) is None:
        return "no file system of the image"
    if {"bind", "rbind"} & set(entry.options):
        return "a bind mount"
    return ""


def _normal(target: str) -> str | None:
    """``target`` without doubled and trailing slashes; None where it is relative or climbs."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    return None if not target.startswith("/") or ".." in parts else "/" + "/".join(parts)


def selector(source: str) -> int | str | None:
    """The ``partition=`` of an fstab source; None where it names none of the image's own."""
    if match := _IDENTITY.fullmatch(source):
        return f"{match[1]}={match[3]}"
    if match := _BY.fullmatch(source):
        return f"{match[1].upper()}={_unescaped(match[2])}"
    if match := _MAPPED.fullmatch(source):
        group, volume = (name.replace("--", "-") for name in match.groups())
        return f"lv:{group}/{volume}"
    if match := _OF_GROUP.fullmatch(source):
        return f"lv:{match[1]}/{match[2]}"
    if match := _NODE.fullmatch(source):
        return int(match[3])
    return None


def _on_another_disk(source: str, root: str) -> bool:
    """Whether ``source`` is a partition's node, and not one of the disk that has the root, whose source is ``root``."""
    if not (match := _NODE.fullmatch(source)):
        return False
    disk, of_root = match[1] or match[2], _NODE.fullmatch(root)
    return disk != (of_root[1] or of_root[2]) if of_root else not _FIRST_DISK.fullmatch(disk)


def _unescaped(name: str) -> str:
    """udev writes unsafe characters of a name as ``\\x20``."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), name)


def _numbers_of(source: str, identities: Mapping[int, Collection[str]]) -> set[int]:
    wanted = selector(source)
    if isinstance(wanted, int):
        return {wanted}
    folded = str(wanted).casefold()
    return {number for number, names in identities.items() if folded in {name.casefold() for name in names}}
