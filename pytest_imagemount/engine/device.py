"""The seam between the ways to make a block device and what is done with one."""

from __future__ import annotations

from typing import Protocol


class Device(Protocol):
    """A block device that we made."""

    @property
    def path(self) -> str: ...

    @property
    def node(self) -> str:
        """The device for system calls of this process, where ``path`` is for people and other processes."""
        ...

    @property
    def attached(self) -> bool:
        """Whether the kernel still has it, and for us."""
        ...

    @property
    def fd(self) -> int:
        """A descriptor that holds the device until :meth:`arm`; -1 after it."""
        ...

    def arm(self) -> None:
        """Let go, so that the kernel itself detaches the device at the last unmount."""
        ...

    def detach(self) -> None:
        """Let go, and see the device gone from the kernel's view."""
        ...
