"""Mount real disk images in tests, in milliseconds, and never leave a thing behind.

Without pytest, :func:`mount_image` and :func:`attach_image` are the context managers of the fixtures
``mounted_image`` and ``attached_image``; :class:`Mount` is the engine's three stages, in this process, for root.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .contents.accounts import Group, User
    from .contents.boot_entry import BootEntry, Bootloader
    from .contents.cron import CronJob
    from .contents.fstab import FstabEntry
    from .contents.operating_system import OsFacts
    from .contents.package import Package
    from .contents.service import Service
    from .contents.ssh_host_keys import SshHostKey
    from .engine.mount import Mount
    from .engine.wanted import Wanted
    from .engine.workspace import Workspace
    from .errors import ImageMountError
    from .factory import Directory, File, ImageFactory, Partition, Symlink, build_image
    from .file_facts import FileFacts
    from .image_diff import ImageDiff, diff
    from .image_path import ImagePath
    from .library import attach_image, mount_image, mount_system
    from .manifest import Manifest
    from .mounted_image import BlockDevice, MountedImage
    from .mounted_system import MountedSystem

# Imported at first use: pytest imports this package in every run of an environment that has it.
_HOMES = {
    "BlockDevice": ".mounted_image",
    "BootEntry": ".contents.boot_entry",
    "Bootloader": ".contents.boot_entry",
    "CronJob": ".contents.cron",
    "Directory": ".factory",
    "File": ".factory",
    "FileFacts": ".file_facts",
    "FstabEntry": ".contents.fstab",
    "Group": ".contents.accounts",
    "ImageDiff": ".image_diff",
    "ImageFactory": ".factory",
    "ImageMountError": ".errors",
    "ImagePath": ".image_path",
    "Manifest": ".manifest",
    "Mount": ".engine.mount",
    "MountedImage": ".mounted_image",
    "MountedSystem": ".mounted_system",
    "OsFacts": ".contents.operating_system",
    "Package": ".contents.package",
    "Partition": ".factory",
    "Service": ".contents.service",
    "SshHostKey": ".contents.ssh_host_keys",
    "Symlink": ".factory",
    "User": ".contents.accounts",
    "Wanted": ".engine.wanted",
    "Workspace": ".engine.workspace",
    "attach_image": ".library",
    "build_image": ".factory",
    "diff": ".image_diff",
    "mount_image": ".library",
    "mount_system": ".library",
}

__all__ = [
    "BlockDevice",
    "BootEntry",
    "Bootloader",
    "CronJob",
    "Directory",
    "File",
    "FileFacts",
    "FstabEntry",
    "Group",
    "ImageDiff",
    "ImageFactory",
    "ImageMountError",
    "ImagePath",
    "Manifest",
    "Mount",
    "MountedImage",
    "MountedSystem",
    "OsFacts",
    "Package",
    "Partition",
    "Service",
    "SshHostKey",
    "Symlink",
    "User",
    "Wanted",
    "Workspace",
    "attach_image",
    "build_image",
    "diff",
    "mount_image",
    "mount_system",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
