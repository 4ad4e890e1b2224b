"""The facts of an installed system as properties of what is mounted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from ..image_path import ImagePath
    from .accounts import Group, User
    from .boot_entry import Bootloader
    from .cron import CronJob
    from .fstab import FstabEntry
    from .operating_system import OsFacts
    from .package import Packages
    from .services import Services
    from .ssh_host_keys import SshHostKey

T = TypeVar("T")


class SystemFacts(ABC):
    """What an installed system is, read from its files: nothing of the image is executed.

    Each fact is read when it is first asked for. With ``mode="ro"`` it is then kept; otherwise read anew each time,
    since the image may have changed. A fact whose files are not in the image is a FactsMissing, which says where they
    were looked for, and never an empty answer.
    """

    @property
    @abstractmethod
    def mode(self) -> str:
        """``ro``, ``overlay`` or ``rw``."""

    @abstractmethod
    def __truediv__(self, path: str | os.PathLike[str]) -> ImagePath: ...

    @property
    def os(self) -> OsFacts:
        """os-release, architecture, kernels, state of the machine id, host name, time zone, locale."""
        from .operating_system import read_os

        return self._fact(read_os)

    @property
    def packages(self) -> Packages:
        """The installed packages by name, of dpkg, rpm, apk and pacman."""
        from .packages import read_packages

        return self._fact(read_packages)

    @property
    def users(self) -> Mapping[str, User]:
        """The users by name, of ``/etc/passwd`` and ``/usr/lib/passwd``."""
        from .accounts import read_users

        return self._fact(read_users)

    @property
    def groups(self) -> Mapping[str, Group]:
        """The groups by name, of ``/etc/group`` and ``/usr/lib/group``."""
        from .accounts import read_groups

        return self._fact(read_groups)

    @property
    def services(self) -> Services:
        """systemd's units by name, as `systemctl list-unit-files` has them; or the scripts of another init."""
        from .services import read_services

        return self._fact(read_services)

    @property
    def fstab(self) -> tuple[FstabEntry, ...]:
        """The entries of ``/etc/fstab``; FactsInvalid names the line that is malformed."""
        from .fstab import read_fstab

        return self._fact(read_fstab)

    @property
    def cron(self) -> tuple[CronJob, ...]:
        """What cron runs."""
        from .cron import read_cron

        return self._fact(read_cron)

    @property
    def ssh_host_keys(self) -> tuple[SshHostKey, ...]:
        """The host keys of OpenSSH and Dropbear; an empty tuple where there is none."""
        from .ssh_host_keys import read_ssh_host_keys

        return self._fact(read_ssh_host_keys)

    @property
    def kernel_cmdline(self) -> str:
        """The kernel's command line: what the boot loader gives it, else what that would be made from."""
        from .bootloader import read_kernel_cmdline

        return self._fact(read_kernel_cmdline)

    @property
    def bootloader(self) -> Bootloader:
        """GRUB, systemd-boot, extlinux or the Raspberry Pi's firmware, with the entries of its menu."""
        from .bootloader import read_bootloader

        return self._fact(read_bootloader)

    def _fact(self, read: Callable[[ImagePath], T]) -> T:
        if self.mode != "ro":
            return read(self / "/")
        known = self.__dict__.setdefault("_known_facts", {})
        if read not in known:
            known[read] = read(self / "/")
        fact: T = known[read]
        return fact
