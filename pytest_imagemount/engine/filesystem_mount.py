"""mount(2): with what the file system's type and state need, and a hint for each way in which the kernel refuses."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import CapabilityMissing, FilesystemNotMountable, MountFailed, RequestInvalid, VolumeNotFound
from . import filesystems, syscalls
from .further_devices import further_device
from .privilege import missing_privilege
from .unmounting import unmount

if TYPE_CHECKING:
    from collections.abc import Callable

    from .device import Device
    from .superblock import Superblock
    from .target import Target

_TOP = "subvolid=5"
"""The option by which btrfs mounts the tree that holds all subvolumes, whatever its default is."""


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A file system that is to be mounted.

    :param image: the image's name, for messages, as is ``part``, which ``partition=`` takes
    :param flags: of mount(2)
    :param options: of the file system
    :param subvolume: of btrfs, by its path from the top; None is what the file system has as its default
    """

    image: str
    part: int | str | None
    fstype: str
    flags: int
    options: tuple[str, ...]
    readonly: bool
    subvolume: str | None = None

    def mount(self, device: Device, target: Target, read: Callable[[int], bytes]) -> bool:
        """Mount it; whether its journal was dirty and was not replayed.

        :param read: reads so many bytes from its start
        :raises RequestInvalid: the type mounts no block devices, or has no subvolumes
        :raises FilesystemNotMountable: it is on further devices, which are none of the image
        :raises VolumeNotFound: it has no such subvolume
        :raises CapabilityMissing: the kernel refused, since this process lacks the privilege
        :raises MountFailed: it refused for another reason
        """
        if not filesystems.is_block_filesystem(self.fstype):
            reason = "this type does not mount block devices"
            raise RequestInvalid(argument="fstype", value=repr(self.fstype), reason=reason)
        options = (*filesystems.standing_options(self.fstype), *self._subvolume_option(), *self.options)
        no_replay = filesystems.no_replay_options(self.fstype) if self.readonly else ()
        try:
            self._refuse_further_device(read)
            return self._mount(device, target, options, no_replay)
        except OSError as error:
            if error.errno == errno.ENOENT and self.subvolume is not None:
                raise self._no_subvolume(device, target, no_replay) from None
            raise self._refused(error) from error

    def _mount(self, device: Device, target: Target, options: tuple[str, ...], no_replay: tuple[str, ...]) -> bool:
        flags = self.flags | (syscalls.MS_RDONLY if self.readonly else 0)
        try:
            syscalls.mount(device.node, target.call, self.fstype, flags, ",".join(options))
        except OSError as error:
            # A dirty journal on a read-only device. btrfs says in the kernel log which error it means.
            answer = errno.EIO if self.fstype == "btrfs" else errno.EROFS
            if error.errno != answer or not no_replay:
                raise
            syscalls.mount(device.node, target.call, self.fstype, flags, ",".join((*options, *no_replay)))
            return True
        return False

    def _refuse_further_device(self, read: Callable[[int], bytes]) -> None:
        further = further_device(read, self.fstype, self.options)
        if further is not None:
            reason = f"the {self.fstype} is not whole in the image: it has {further}, which the kernel would open"
            hint = "build it on one device" if self.fstype == "f2fs" else "options='noload' leaves the journal out"
            raise FilesystemNotMountable(
                image=self.image, partition=self.part, found=self.fstype, reason=reason, hint=hint
            )

    def _subvolume_option(self) -> tuple[str, ...]:
        if self.subvolume is None:
            return ()
        reason = ""
        if self.fstype != "btrfs":
            reason = f"it is a thing of btrfs, and this is {self.fstype}"
        elif "," in self.subvolume or not self.subvolume.strip("/"):
            reason = "it must be a path from the top, such as '@home', without a comma"
        if reason:
            raise RequestInvalid(argument="subvolume", value=repr(self.subvolume), reason=reason)
        return (f"subvol={self.subvolume}",)

    def _no_subvolume(self, device: Device, target: Target, no_replay: tuple[str, ...]) -> VolumeNotFound:
        """The error that lists those that there are: the top is mounted for a moment to ask."""
        self._mount(device, target, (_TOP, *self.options), no_replay)
        try:
            found = _subvolumes_at(target, device)
        finally:
            unmount(target)
        hint = "the subvolumes are:" if found else "this btrfs has no subvolume"
        wanted, reason = str(self.subvolume), "there is no such subvolume"
        return VolumeNotFound(image=self.image, wanted=wanted, reason=reason, hint=hint, volumes=found)

    def _refused(self, error: OSError) -> MountFailed | CapabilityMissing:
        fstype, number = self.fstype, error.errno or 0
        if missing := missing_privilege(error):
            return missing
        hints = {
            errno.ENODEV: f"this kernel has no {fstype}: run `modprobe {fstype}`, or use `imagemount lab`",
            errno.EINVAL: f"the {fstype} on it is damaged, or an option is not one of its: see the kernel log (dmesg)",
            errno.EUCLEAN: f"the {fstype} on it is damaged: check the image with fsck",
            errno.EPERM: "run as root, or allow `sudo -n`; in a container, add CAP_SYS_ADMIN",
            errno.EIO: "the image is damaged or truncated: see the kernel log (dmesg)",
            errno.EROFS: "use mode='overlay', which replays the journal without touching the image",
        }
        hint = hints.get(number, "see the kernel log (dmesg)")
        reason = os.strerror(number)
        return MountFailed(image=self.image, partition=self.part, fstype=fstype, errno=number, reason=reason, hint=hint)


def _subvolumes_at(target: Target, device: Device) -> list[str]:
    from .volumes.subvolumes import subvolumes

    root = target.open_root(device.path)
    try:
        # The descriptor of the root has no right to ask; what it leads to may be opened.
        fd = os.open(f"/proc/self/fd/{root}/.", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    finally:
        os.close(root)
    try:
        return subvolumes(fd)
    finally:
        os.close(fd)


def not_mountable(image: str, part: int | str | None, found: Superblock | None) -> FilesystemNotMountable:
    """The error for a part of the image that holds no file system, saying what it holds instead."""
    reason, hint = _what_is_there(found, part)
    known = found.type if found else None
    return FilesystemNotMountable(image=image, partition=part, found=known, reason=reason, hint=hint)


def _what_is_there(found: Superblock | None, part: int | str | None) -> tuple[str, str]:
    if found is None:
        where = "the image" if part is None else "the partition" if isinstance(part, int) else "the volume"
        return f"{where} holds no file system that is known", "name it with fstype=, or choose another partition"
    if found.usage == "crypto":
        return f"it is encrypted ({found.type})", "open it on attached_image(...) first, with the tools of its own kind"
    if found.type == "swap":
        return "it is swap space, which holds no files", "choose another partition"
    if found.type == "DM_verity_hash":
        return "it holds the hashes of dm-verity", "choose the partition with the data, and give verity="
    if found.usage == "raid":
        hint = "activate it on attached_image(...) first, with the tools of its own kind"
        return f"it is a member of a volume ({found.type})", hint
    return f"it holds {found.type} ({found.usage}), not a file system", "choose another partition"
