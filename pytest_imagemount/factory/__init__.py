"""image_factory: small real disk images for tests, built without privilege.

>>> build_image("disk.qcow2", format="qcow2", table="gpt", partitions=[
...     Partition(fstype="vfat", type="esp"),
...     Partition(fstype="ext4", label="root", content={
...         "etc/hostname": "web01\\n",
...         "bin/su": File(b"...", mode=0o4755),
...         "etc/mtab": Symlink("/proc/self/mounts"),
...     }),
... ])  # doctest: +SKIP
"""

from __future__ import annotations

from .content import Content, Device, Directory, File, Hardlink, Symlink
from .images import FORMATS, ImageFactory, build_image
from .partition import Partition

__all__ = [
    "FORMATS",
    "Content",
    "Device",
    "Directory",
    "File",
    "Hardlink",
    "ImageFactory",
    "Partition",
    "Symlink",
    "build_image",
]
