"""What a refusal of qemu's means for the image that it was asked to open."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...errors import CapabilityMissing, DeviceFailed, ImageBusy, ImageInvalid

if TYPE_CHECKING:
    from ...errors import ImageMountError
    from .qmp import QmpError

# QMP has one error class for nearly everything, so the text is all there is. These are the texts of qemu's block layer,
# not of the C library, and the daemon runs with LC_ALL=C.UTF-8. What matches none is the format driver's word.
_LOCK = re.compile(r'Failed to get (shared )?"[\w ]+" lock|Failed to lock byte')
_NO_DRIVER = re.compile(r"does not accept value|Unknown driver|Driver .* (is not|cannot be) ")
_NOT_OPENED = re.compile(r"(Could not|Failed to) (open|refresh|reopen|read|get).*: [A-Z][a-z ]+$")
_OUR_FILE = re.compile(r"'?/proc/\d+/fd/\d+'?")


def refusal(error: QmpError, *, image: str, format: str) -> ImageMountError:
    """The error to raise when qemu will not open ``image`` as ``format``."""
    said = _OUR_FILE.sub("the image", error.desc)
    if _LOCK.search(said):
        reason = f"another program, or another mount, has a lock on it ({said})"
        hint = "end the virtual machine or the mount that uses it, or use a copy"
        return ImageBusy(image=image, reason=reason, hint=hint)
    if _NO_DRIVER.search(said):
        hint = "install package qemu-block-extra, or convert the image with `qemu-img convert`"
        reason = f"this build of qemu-storage-daemon does not read {format} ({said})"
        return CapabilityMissing(capability="qemu", reason=reason, hint=hint)
    if _NOT_OPENED.search(said):
        hint = "see whether the medium that it is on is sound, and who may read it"
        return DeviceFailed(image=image, device="qemu-storage-daemon", reason=said, hint=hint)
    hint = f"see what `qemu-img check -f {format}` says of it, or get a whole copy"
    return ImageInvalid(image=image, reason=f"qemu refuses it as {format}: {said}", hint=hint)
