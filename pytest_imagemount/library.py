"""The fixtures' context managers for programs that do not run under pytest."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .config import Settings
from .session import MountSession
from .terminal import drawer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .image_files import BackingChoice, Images
    from .mounted_image import BlockDevice, MountedImage
    from .mounted_system import MountedSystem
    from .pending import Pending


def mount_image(
    image: Images,
    partition: int | str | None = None,
    *,
    format: str | None = None,
    mode: str = "ro",
    fstype: str | None = None,
    options: Sequence[str] | str = (),
    mountpoint: str | os.PathLike[str] | None = None,
    backend: str | None = None,
    timeout: float | None = None,
    volume: str | None = None,
    subvolume: str | None = None,
    passphrase: str | bytes | None = None,
    key_file: str | os.PathLike[str] | None = None,
    verity: str | None = None,
    architecture: str | None = None,
    overlay_size: int | None = None,
    backing: BackingChoice = "refuse",
) -> Pending[MountedImage]:
    """A context manager that mounts ``image``, as :meth:`.session.MountSession.mount` says.

    A relative path is looked for in the folders of ``IMAGEMOUNT_PATH``, then in the working folder. The settings come
    from the ``IMAGEMOUNT_*`` variables. What is left open is undone when the process ends, however it ends.
    """
    return _session().mount(
        image,
        partition,
        format=format,
        mode=mode,
        fstype=fstype,
        options=options,
        mountpoint=mountpoint,
        backend=backend,
        timeout=timeout,
        volume=volume,
        subvolume=subvolume,
        passphrase=passphrase,
        key_file=key_file,
        verity=verity,
        architecture=architecture,
        overlay_size=overlay_size,
        backing=backing,
    )


def mount_system(
    image: Images,
    partition: int | str = "auto",
    *,
    format: str | None = None,
    mode: str = "ro",
    backend: str | None = None,
    timeout: float | None = None,
    passphrase: str | bytes | None = None,
    key_file: str | os.PathLike[str] | None = None,
    architecture: str | None = None,
    overlay_size: int | None = None,
    backing: BackingChoice = "refuse",
) -> Pending[MountedSystem]:
    """A context manager that mounts the system in ``image``, as :meth:`.session.MountSession.mount_system` says.

    See also :func:`mount_image`.
    """
    return _session().mount_system(
        image,
        partition,
        format=format,
        mode=mode,
        backend=backend,
        timeout=timeout,
        passphrase=passphrase,
        key_file=key_file,
        architecture=architecture,
        overlay_size=overlay_size,
        backing=backing,
    )


def attach_image(
    image: Images,
    partition: int | str | None = None,
    *,
    format: str | None = None,
    mode: str = "ro",
    partitions: bool = False,
    backend: str | None = None,
    timeout: float | None = None,
    volume: str | None = None,
    passphrase: str | bytes | None = None,
    key_file: str | os.PathLike[str] | None = None,
    verity: str | None = None,
    overlay_size: int | None = None,
    backing: BackingChoice = "refuse",
) -> Pending[BlockDevice]:
    """A context manager that attaches ``image``, as :meth:`.session.MountSession.attach` says; see also mount_image."""
    return _session().attach(
        image,
        partition,
        format=format,
        mode=mode,
        partitions=partitions,
        backend=backend,
        timeout=timeout,
        volume=volume,
        passphrase=passphrase,
        key_file=key_file,
        verity=verity,
        overlay_size=overlay_size,
        backing=backing,
    )


def _session() -> MountSession:
    """A scope that never ends by itself, and leaves the signal handlers of the program alone."""
    settings = Settings.from_environment()
    return MountSession(settings, test=_caller(), folders=(*settings.path, Path.cwd()), draw=drawer())


def _caller() -> str:
    """Who mounts, for others to read: the test that runs, else file and line of the call."""
    frame = sys._getframe(3)
    where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
    test = os.environ.get("PYTEST_CURRENT_TEST")
    return f"{test} at {where}" if test else where
