"""Mounts an installed system: its root, then what belongs below it, each as an image of its own for teardown."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .contents.fstab import read_fstab
from .contents.reading import read_names
from .engine.volumes.kinds import LUKS
from .errors import (
    FactsMissing,
    ImageInvalid,
    ImageMountError,
    MountFailed,
    PartitionNotFound,
    PassphraseRequired,
    VolumeNotFound,
    is_ours,
)
from .helper.protocol import Layout
from .mounted_image import MountedImage
from .mounted_system import MountedSystem, looks_like_root, part_of, root_elsewhere
from .pending import Pending
from .system_plan import DISCOVERED, PLACES, Skipped, plan_system

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .contents.fstab import FstabEntry
    from .image_files import Files
    from .session import MountSession
    from .system_plan import Submount

__tracebackhide__ = is_ours
_MOST_SUBMOUNTS = 64


@dataclass(frozen=True, slots=True)
class SystemWish:
    """What is to be mounted: ``request`` has what holds for every file system of it."""

    files: Files
    request: dict[str, Any]
    partition: int | str
    timeout: float | None


def assemble(session: MountSession, wish: SystemWish) -> Pending[MountedSystem]:
    """The system of ``wish``, mounted on entering. All of it is ``session``'s to undo, the root at last."""

    def open_it(pending: Pending[MountedSystem]) -> MountedSystem:
        system = _open_root(session, wish, pending)
        with ExitStack() as undo:
            undo.callback(system.unmount)
            _mount_below(session, wish, pending, system)
            undo.pop_all()
        return system

    return Pending(session, wish.files.name, open_it, MountedSystem.unmount)


def _open_root(session: MountSession, wish: SystemWish, pending: Pending[MountedSystem]) -> MountedSystem:
    request = {**wish.request, "partition": wish.partition}
    system = session.open(MountedSystem, pending, wish.files, request, wish.timeout)
    try:
        elsewhere = root_elsewhere(system, wish.partition)
    except BaseException:
        system.unmount()
        raise
    if elsewhere is None:
        return system
    system.unmount()
    return session.open(MountedSystem, pending, wish.files, {**request, **elsewhere}, wish.timeout)


def _mount_below(
    session: MountSession, wish: SystemWish, pending: Pending[MountedSystem], system: MountedSystem
) -> None:
    client, root = pending.claimed
    layout = client.ask(Layout(root, wish.request["architecture"]))["layout"]
    by_type = system.partition is not None and layout["roles"].get("root") == system.partition
    if wish.partition in ("auto", -1) and not by_type and not wish.files.has_key and not looks_like_root(system):
        _refuse_closed(wish, layout["encrypted"])
    plan = plan_system(
        _fstab(system, dict(layout["volumes"])),
        layout["roles"],
        dict(layout["names"]),
        root=system.partition,
        folders={place for place in PLACES if (system / place).is_dir()},
        encrypted=_encrypted(system),
    )
    if len(plan.submounts) > _MOST_SUBMOUNTS:
        reason = f"its /etc/fstab has {len(plan.submounts)} file systems to mount; {_MOST_SUBMOUNTS} is the most"
        raise ImageInvalid(image=wish.files.name, reason=reason, hint="mount the partitions that are needed one by one")
    own = {f"{key}={name}" for key, name in (("UUID", system.uuid), ("LABEL", system.label)) if name}
    skipped = list(plan.skipped)
    for submount in plan.submounts:
        if submount.of_root or submount.partition in own:
            # The root's own file system, wherever it is: in the image itself, in a partition, in a volume.
            submount = replace(submount, partition=part_of(system, wish.partition))
        below = _pending(session, wish, root, submount)
        try:
            below.__enter__()
        except (PartitionNotFound, VolumeNotFound) as error:
            if not submount.optional:
                raise _told(error, submount) from None
            reason = f"nofail, and there is no such {'volume' if isinstance(error, VolumeNotFound) else 'partition'}"
            skipped.append(Skipped(str(submount.partition), submount.target, reason))
        except MountFailed as error:
            if submount.origin != DISCOVERED or error.errno != errno.ENODEV:
                raise _told(error, submount) from None
            reason = "found by its type, and this kernel cannot mount what is in it"
            skipped.append(Skipped(f"partition {submount.partition}", submount.target, reason))
        except ImageMountError as error:
            raise _told(error, submount) from None
        else:
            system.hold(submount.target, below)
    system.skipped = tuple(skipped)


def _refuse_closed(wish: SystemWish, encrypted: Sequence[int]) -> None:
    """What was found holds no system: it is /boot, or the ESP, where there is something encrypted besides."""
    if encrypted:
        raise PassphraseRequired(
            image=wish.files.name,
            partition=encrypted[0],
            found=LUKS,
            reason="no system was found, and this is encrypted (LUKS)",
            hint="give passphrase= or key_file=, or the root's partition=",
        )


def _fstab(system: MountedSystem, volumes: Mapping[str, str]) -> Sequence[FstabEntry]:
    """Its entries, with logical volumes by their names also where it has them by UUID, as installers of Ubuntu do."""
    try:
        entries = read_fstab(system / "/")
    except FactsMissing:
        return ()
    names = {f"/dev/disk/by-id/{uuid}": f"/dev/{name}" for uuid, name in volumes.items()}
    return [replace(entry, source=names.get(entry.source, entry.source)) for entry in entries]


def _encrypted(system: MountedSystem) -> set[str]:
    """The devices that crypttab(5) makes."""
    lines = (read_names(system / "etc/crypttab") or "").split("\n")
    words = [line.split() for line in lines]
    return {f"/dev/mapper/{line[0]}" for line in words if line and not line[0].startswith("#")}


def _pending(session: MountSession, wish: SystemWish, root: int, submount: Submount) -> Pending[MountedImage]:
    request = {
        **wish.request,
        "partition": submount.partition,
        "fstype": submount.fstype,
        "options": submount.options,
        "subvolume": submount.subvolume,
        "under": root,
        "at": submount.target,
    }

    def open_it(pending: Pending[MountedImage]) -> MountedImage:
        return session.open(MountedImage, pending, wish.files, request, wish.timeout)

    return Pending(session, wish.files.name, open_it, MountedImage.unmount)


def _told(error: ImageMountError, submount: Submount) -> ImageMountError:
    where = "/etc/fstab of the image" if submount.origin != DISCOVERED else "the types of its partitions"
    error.add_note(f"{submount.partition} belongs at {submount.target}, by {where}")
    return error
