"""An installed system of an image: its root, and below it everything else that it mounts when it boots."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from .contents.fstab import read_fstab
from .engine.tables.os_release import PLACES, SUBVOLUME
from .engine.text import printable
from .errors import FactsInvalid, FactsMissing, VolumeNotFound
from .mounted_image import MountedImage

if TYPE_CHECKING:
    from collections.abc import Callable

    from .facts import MountFacts
    from .image_path import ImagePath
    from .image_root import Opener
    from .pending import Pending
    from .running.starter import Starter
    from .system_plan import Skipped


class MountedSystem(MountedImage):
    """The root file system, with the others mounted below it: ``system / "boot/efi/loader"`` leads into the ESP.

    It is a :class:`~.mounted_image.MountedImage` of the root; the facts are the root's.
    """

    def __init__(
        self,
        facts: MountFacts,
        release: Callable[[], None],
        *,
        opener: Opener | None = None,
        starter: Starter | None = None,
    ) -> None:
        super().__init__(facts, release, opener=opener, starter=starter)
        self._below: dict[str, Pending[MountedImage]] = {}
        self.skipped: tuple[Skipped, ...] = ()
        """What fstab names and is not mounted here, each with the reason: swap, ``noauto``, network file systems."""

    def hold(self, target: str, below: Pending[MountedImage]) -> None:
        """Take over what was just mounted at ``target``."""
        self._below[target] = below

    @property
    def submounts(self) -> dict[str, MountedImage]:
        """What is mounted below the root, by its path in the system, as ``/boot/efi``; in the order of mounting."""
        return {target: pending.thing for target, pending in self._below.items() if pending.thing is not None}

    def unmount(self) -> None:
        """Unmount everything now, the latest first; again is nothing. Where it fails, it may be called again."""
        with ExitStack() as closing:
            closing.callback(super().unmount)
            for pending in self._below.values():
                closing.callback(pending.close)

    def __repr__(self) -> str:
        return f"{super().__repr__().removesuffix('>')}{''.join(f', {target}' for target in self.submounts)}>"


def looks_like_root(image: MountedImage | ImagePath) -> bool:
    """Whether an installed system's root is here: os-release(5) has its place in ``/etc`` or in ``/usr/lib``."""
    return any((image / place).exists(follow_symlinks=False) for place in PLACES)


def part_of(image: MountedImage, asked: int | str | None) -> int | str | None:
    """What ``partition=`` takes to mount the same part once more; it was mounted when ``asked`` was asked for."""
    return asked if image.facts.part is None else image.facts.part


def root_elsewhere(image: MountedImage, asked: int | str | None) -> dict[str, Any] | None:
    """``partition`` and ``subvolume`` of the system, where it is in a subvolume of what is mounted; else None.

    :param asked: as for :func:`part_of`
    :raises VolumeNotFound: several subvolumes hold a system, and which one is the root cannot be told
    """
    subvolume = _root_subvolume(image)
    return None if subvolume is None else {"partition": part_of(image, asked), "subvolume": subvolume}


def _root_subvolume(image: MountedImage) -> str | None:
    """The btrfs subvolume that holds the system, of those at the top; None where there is none, or it is mounted.

    Distributions call it ``@``, ``root`` or ``@rootfs``; what counts is that a system is in it. Of several, as where
    there are snapshots of one, it is the one whose own fstab says that the root is there.

    :raises VolumeNotFound: that is none, or more than one of them
    """
    if image.fstype != "btrfs" or looks_like_root(image):
        return None
    found = [entry for entry in (image / "/").iterdir() if _is_subvolume(entry) and looks_like_root(entry)]
    if len(found) > 1:
        every, found = found, [entry for entry in found if _fstab_root(entry) == entry.name]
        if len(found) != 1:
            reason = f"{len(every)} subvolumes hold a system, and which one is the root cannot be told"
            hint = "mount one by mounted_image(…, subvolume=…), one of:"
            names = [printable(entry.name) for entry in every]
            raise VolumeNotFound(image=image.title, wanted="", reason=reason, hint=hint, volumes=names)
    return found[0].name if found else None


def _is_subvolume(entry: ImagePath) -> bool:
    return entry.is_dir(follow_symlinks=False) and entry.stat().st_ino == SUBVOLUME


def _fstab_root(root: ImagePath) -> str | None:
    """The subvolume that is the root by the fstab of the tree ``root``."""
    try:
        entries = read_fstab(root)
    except (FactsMissing, FactsInvalid):
        return None
    options = next((entry.options for entry in entries if entry.target == "/"), ())
    names = [option.removeprefix("subvol=").strip("/") for option in options if option.startswith("subvol=")]
    return names[-1] if names else None
