"""An image and the files that it refers to, as nodes of the storage daemon: each with its driver named, none probed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ...errors import ImageInvalid, ImageUnreadable, ImageUnsafe
from ..formats import vmdk
from ..formats.content import Content
from ..formats.references import DATA, EXTENT
from ..image_lock import lock_image
from .nodes import our_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..image import Image
    from ..undo import UndoStack
    from .daemon import StorageDaemon


def open_disk(
    daemon: StorageDaemon,
    image: Image,
    mode: str,
    make_scratch_file: Callable[[], int],
    undo: UndoStack,
    *,
    overlay_size: int | None = None,
) -> str:
    """The node of ``image``'s virtual disk for ``mode`` (ro, overlay, rw); each undo goes on ``undo``.

    :param make_scratch_file: gives a descriptor of an empty temporary file, for what mode overlay writes
    :param overlay_size: bytes that this file may become long; None is no bound
    """
    node = open_image(daemon, image, undo, readonly=mode != "rw")
    if mode != "overlay":
        return node
    scratch = make_scratch_file()
    undo.push("remove the scratch file", lambda: os.close(scratch))
    overlay = daemon.add_overlay(node, scratch, most=overlay_size)
    undo.push(f"remove the overlay of {image.name!r}", lambda: daemon.remove_node(overlay))
    return overlay


def open_image(daemon: StorageDaemon, image: Image, undo: UndoStack, *, readonly: bool) -> str:
    """The node of ``image``'s virtual disk; each undo goes on ``undo``.

    What an image is a difference to is only ever read, and locked as such.

    :raises ImageUnreadable: it is to be written to, and qemu does not write to this format
    """
    if not readonly and image.why_not_written:
        hint = "use mode='overlay', or convert it with `qemu-img convert`"
        raise ImageUnreadable(image=image.name, mode="rw", reason=image.why_not_written, hint=hint)
    if image.layers and image.layers[-1].reference.role == EXTENT:
        return _open_extents(daemon, image, undo)
    backing = data_file = None
    for layer in image.layers:
        is_data = layer.reference.role == DATA
        _lock(layer.image, undo, exclusive=is_data and not readonly)
        node = open_image(daemon, layer.image, undo, readonly=readonly or not is_data)
        if is_data:
            data_file = node
        else:
            backing = node
    node = daemon.add_image(
        image.fd, image.format, image=image.name, readonly=readonly, backing=backing, data_file=data_file
    )
    undo.push(f"close image {image.name!r}", lambda: daemon.remove_node(node))
    return node


def _open_extents(daemon: StorageDaemon, image: Image, undo: UndoStack) -> str:
    """A VMDK of several files, read-only: by a descriptor in memory that names the open extents and nothing else."""
    backing, extents = None, []
    for layer in image.layers:
        _lock(layer.image, undo, exclusive=False)
        if layer.reference.role == EXTENT:
            if layer.image.layers:
                hint = "make a self-contained copy of the disk with `qemu-img convert`, if you trust it"
                raise ImageUnsafe(image=layer.image.name, reason="an extent refers to further files", hint=hint)
            _require_length(layer.image, layer.reference.first + layer.reference.sectors)
            extents.append((layer.reference, f"{our_files()}{layer.image.fd}"))
        else:
            backing = open_image(daemon, layer.image, undo, readonly=True)
    content = Content.open_at(image.fd, image.name, image.file_size, references=[])
    descriptor = os.memfd_create("imagemount-vmdk", os.MFD_CLOEXEC)
    undo.push("close the VMDK descriptor", lambda: os.close(descriptor))
    os.write(descriptor, vmdk.descriptor_of(content, extents))
    opens = frozenset(path for _, path in extents)
    node = daemon.add_image(
        descriptor, image.format, image=image.name, readonly=True, backing=backing, also_opens=opens
    )
    undo.push(f"close image {image.name!r}", lambda: daemon.remove_node(node))
    return node


def _require_length(extent: Image, sectors: int) -> None:
    # qemu reads a sparse extent's own tables; of a flat one it would tell by input/output errors.
    if extent.format == "raw" and extent.file_size < sectors * 512:
        reason = f"truncated: {sectors * 512} bytes of it are wanted, it has {extent.file_size}"
        raise ImageInvalid(image=extent.name, reason=reason, hint="get a whole copy of it")


def _lock(image: Image, undo: UndoStack, *, exclusive: bool) -> None:
    lock = lock_image(image.fd, image.name, exclusive=exclusive)
    undo.push(f"unlock {image.name!r}", lock.release)
