"""How each file system type is mounted: flags, options, and what a dirty journal needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestInvalid
from . import syscalls

if TYPE_CHECKING:
    from collections.abc import Sequence

# Two copies of one XFS image carry one UUID, which the kernel mounts only once unless told not to look at it.
_ALWAYS = {"xfs": ("nouuid",)}

# What lets a read-only device with an unreplayed journal mount. The content is then that of the moment of the crash.
_NO_REPLAY = {
    "ext3": ("noload",),
    "ext4": ("noload",),
    "xfs": ("norecovery",),
    "btrfs": ("rescue=nologreplay",),
}

_FLAGS = {
    "noexec": syscalls.MS_NOEXEC,
    "noatime": syscalls.MS_NOATIME,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
}
_DECIDED_BY_US = {
    "ro": "use mode='ro'",
    "rw": "use mode='rw' or mode='overlay'",
    "suid": "images are always mounted nosuid",
    "dev": "images are always mounted nodev",
    "loop": "the device is chosen by backend=",
    "offset": "the place is chosen by partition=",
    "sizelimit": "the place is chosen by partition=",
    "remount": "mount again instead",
    "bind": "bind mounts are not images",
}
# Options by which a file system opens a second device, which the caller might not be allowed to open.
_NAMES_A_DEVICE = {"device", "fd", "jdev", "journal_path", "journal_dev", "logdev", "rtdev", "source"}
_NAMES_A_DEVICE |= {"jqfmt", "usrjquota", "grpjquota"}


def split_options(options: Sequence[str]) -> tuple[int, tuple[str, ...]]:
    """mount(2) flags and file-system data of the user's ``options``; ``nosuid,nodev`` are always among the flags.

    :raises RequestInvalid: an option that is not the caller's to choose
    """
    flags, data = syscalls.MS_NOSUID | syscalls.MS_NODEV, []
    for option in [part for given in options for part in given.split(",") if part]:
        name, _, value = option.partition("=")
        if name in _DECIDED_BY_US:
            raise RequestInvalid(argument="options", value=repr(option), reason=_DECIDED_BY_US[name])
        if name in _NAMES_A_DEVICE or value.startswith("/") or not option.isprintable():
            reason = "options that name a device or a path are refused"
            raise RequestInvalid(argument="options", value=repr(option), reason=reason)
        if option in _FLAGS:
            flags |= _FLAGS[option]
        else:
            data.append(option)
    return flags, tuple(data)


def standing_options(fstype: str) -> tuple[str, ...]:
    """Options that every mount of ``fstype`` gets."""
    return _ALWAYS.get(fstype, ())


def no_replay_options(fstype: str) -> tuple[str, ...]:
    """Options that mount ``fstype`` read-only without replaying its journal; empty where it has none."""
    return _NO_REPLAY.get(fstype, ())


# Those whose driver may still have to be loaded: before that the kernel does not tell which kind they are. Others could
# be made to show files of this machine: an overlay does, by a relative lowerdir.
# fmt: off
_ON_BLOCK_DEVICES = frozenset({
    "adfs", "affs", "befs", "bfs", "btrfs", "cramfs", "efs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs",
    "hfsplus", "hpfs", "iso9660", "jfs", "minix", "msdos", "nilfs2", "ntfs", "ntfs3", "omfs", "qnx4", "qnx6",
    "reiserfs", "romfs", "squashfs", "sysv", "udf", "ufs", "vfat", "xfs", "zonefs",
})
# fmt: on

_seen_on_block_devices: set[str] = set()


def is_block_filesystem(fstype: str) -> bool:
    """Whether ``fstype`` mounts a block device."""
    if fstype not in _seen_on_block_devices and _is_block_filesystem(fstype):
        _seen_on_block_devices.add(fstype)
    return fstype in _seen_on_block_devices


def _is_block_filesystem(fstype: str) -> bool:
    for line in Path("/proc/filesystems").read_text().splitlines():
        kind, name = line.split("\t")
        if name == fstype:
            return kind == ""
    return fstype in _ON_BLOCK_DEVICES  # not loaded yet: mount(2) loads the module
