"""Mount real disk images in tests, in milliseconds, and never leave a thing behind.

Without pytest, :func:`mount_image` and :func:`attach_image` are the context managers of the fixtures
``mounted_image`` and ``attached_image``; :class:`Mount` is the engine's three stages, in this process, for root.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .engine.mount import Mount
    from .engine.wanted import Wanted
    from .engine.workspace import Workspace
    from .errors import ImageMountError
    from .factory import Directory, File, ImageFactory, Partition, Symlink, build_image
    from .image_path import ImagePath
    from .library import attach_image, mount_image
    from .mounted_image import BlockDevice, MountedImage

# Imported at first use: pytest imports this package in every run of an environment that has it.
_HOMES = {
    "BlockDevice": ".mounted_image",
    "Directory": ".factory",
    "File": ".factory",
    "ImageFactory": ".factory",
    "ImageMountError": ".errors",
    "ImagePath": ".image_path",
    "Mount": ".engine.mount",
    "MountedImage": ".mounted_image",
    "Partition": ".factory",
    "Symlink": ".factory",
    "Wanted": ".engine.wanted",
    "Workspace": ".engine.workspace",
    "attach_image": ".library",
    "build_image": ".factory",
    "mount_image": ".library",
}

__all__ = [
    "BlockDevice",
    "Directory",
    "File",
    "ImageFactory",
    "ImageMountError",
    "ImagePath",
    "Mount",
    "MountedImage",
    "Partition",
    "Symlink",
    "Wanted",
    "Workspace",
    "attach_image",
    "build_image",
    "mount_image",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
