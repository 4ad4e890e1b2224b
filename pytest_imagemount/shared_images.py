"""The images of ``--image`` and of check files, each mounted once for all the tests that follow each other with it."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from .errors import ImageMountError
from .mounted_system import root_elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .image_option import ImageChoice
    from .inspection import Inspection
    from .mounted_image import MountedImage
    from .pending import Pending
    from .session import MountSession

_SHARED = pytest.StashKey["SharedImages"]()


class SharedImage:
    """One image, inspected and mounted when it is first asked for; what failed once fails again, without a new try."""

    def __init__(self, choice: ImageChoice, mounts: MountSession) -> None:
        self.choice = choice
        self._mounts = mounts
        self._pending: Pending[MountedImage] | None = None
        self._error: ImageMountError | None = None
        self._told = False

    @cached_property
    def inspection(self) -> Inspection:
        """What is on the disk; nothing is mounted for it.

        :raises ImageMountError: it cannot be read
        """
        from .inspection import inspect

        return inspect(str(self.choice.path), format=self.choice.format)

    @property
    def image(self) -> MountedImage:
        """The image, mounted.

        :raises ImageMountError: it cannot be mounted
        """
        if self._error is not None:
            raise self._error
        try:
            if self._pending is None:
                self._pending = self._mount()
            return self._pending.thing or self._pending.__enter__()
        except ImageMountError as error:
            self._error = error
            raise

    def _mount(self) -> Pending[MountedImage]:
        choice = self.choice
        how: dict[str, Any] = {"format": choice.format, "mode": choice.mode}
        pending = self._mounts.mount(choice.path, choice.partition, **how)
        if choice.partition not in ("auto", -1):
            return pending
        # What holds the system may be a subvolume of the file system.
        image = pending.__enter__()
        elsewhere = None
        with suppress(ImageMountError):  # it cannot be told which: the checks are of what is mounted
            elsewhere = root_elsewhere(image, choice.partition)
        if elsewhere is None:
            return pending
        pending.close()
        return self._mounts.mount(choice.path, **elsewhere, **how)

    @property
    def mounted(self) -> MountedImage | None:
        """The image, if it is mounted by now."""
        return self._pending.thing if self._pending else None

    def tell(self, error: BaseException) -> str:
        """The message of ``error``; of what keeps the image from being mounted, the first line where it was told."""
        text = str(error)
        if error is not self._error:
            return text
        told, self._told = self._told, True
        return text.splitlines()[0] if told else text

    def close(self) -> None:
        """Unmount it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.close()


class SharedImages:
    """The images of one test process.

    Those that a fixture holds stay mounted until it lets go; of the others, one: the latest. With each worker that
    held all, few images would use up every NBD device of the machine.
    """

    def __init__(self, mounts: MountSession) -> None:
        self._mounts = mounts
        self._held: dict[ImageChoice, SharedImage] = {}
        self._latest: SharedImage | None = None

    def take(self, choice: ImageChoice) -> SharedImage:
        """The image, until another one is taken."""
        if choice in self._held:
            return self._held[choice]
        if self._latest is None or self._latest.choice != choice:
            self._drop_latest()
            self._latest = SharedImage(choice, self._mounts)
        return self._latest

    @contextmanager
    def held(self, choice: ImageChoice) -> Iterator[SharedImage]:
        """The image, until the block ends."""
        shared = self._held[choice] = self.take(choice)
        if shared is self._latest:
            self._latest = None
        else:
            self._drop_latest()
        try:
            yield shared
        finally:
            del self._held[choice]
            self._drop_latest()
            self._latest = shared  # a check file may come next that is run with it

    def known(self, choice: ImageChoice) -> SharedImage | None:
        """The image, where it is at hand."""
        if self._latest is not None and self._latest.choice == choice:
            return self._latest
        return self._held.get(choice)

    def close(self) -> None:
        """Unmount all."""
        self._drop_latest()
        self._mounts.close()

    def _drop_latest(self) -> None:
        latest, self._latest = self._latest, None
        if latest is not None:
            latest.close()


def shared_images(session: pytest.Session) -> SharedImages:
    """The images of this test process, until the end of its last test. To be called while a test is set up."""
    if _SHARED not in session.stash:
        from .plugin import session_of

        shared = session.stash[_SHARED] = SharedImages(session_of(session))
        session.addfinalizer(shared.close)
    return session.stash[_SHARED]


def known_images(session: pytest.Session) -> SharedImages | None:
    """The images of this test process, if a test has used any so far."""
    return session.stash.get(_SHARED, None)
