"""A device that another mount of the same image has made, used once more.

Two devices of one file system would be two caches of the same blocks: writing through both destroys it, and a btrfs is
not even mounted twice by kernels before 6.7. The kernel mounts one device as often as one likes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .device import Device


@dataclass(frozen=True, slots=True)
class SharedDevice:
    """``owner`` is mounted, and is unmounted after this one: it is the owner's mount that lets it go."""

    owner: Device

    @property
    def path(self) -> str:
        """As the owner's."""
        return self.owner.path

    @property
    def node(self) -> str:
        """As the owner's."""
        return self.owner.node

    @property
    def attached(self) -> bool:
        """Whether the kernel still has it."""
        return self.owner.attached

    @property
    def fd(self) -> int:
        """None: the owner's mount holds it."""
        return -1

    def arm(self) -> None:
        """Nothing: the kernel detaches it at the last unmount of all."""

    def detach(self) -> None:
        """Nothing: it is the owner's."""
