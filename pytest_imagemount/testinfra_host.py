"""A testinfra host whose system is a mounted image: what testinfra wants run goes through ``image.run``."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from .errors import CapabilityMissing
from .running.run import require_allowed

if TYPE_CHECKING:
    from typing import Self

    from testinfra.backend.base import CommandResult  # type: ignore[import-untyped]
    from testinfra.host import Host  # type: ignore[import-untyped]

    from .mounted_image import MountedImage


def make_host(image: MountedImage) -> Host:
    """A new host each time: testinfra's own ``get_host`` keeps hosts for the process, and an image is soon unmounted.

    :raises CommandNotAllowed: the setting does not allow to run commands
    :raises CapabilityMissing: testinfra is not installed
    """
    require_allowed(image, ("testinfra",))
    if importlib.util.find_spec("testinfra") is None:
        raise CapabilityMissing(
            capability="testinfra",
            reason="pytest-testinfra is not installed",
            hint="pip install pytest-imagemount[testinfra]",
        )
    from testinfra.host import Host

    backend = _backend_class()(image)
    host = Host(backend)
    backend.set_host(host)
    return host


def _backend_class() -> type[Any]:
    """The subclass of testinfra's backend, made when it is needed: testinfra is not always there."""
    from testinfra.backend.base import BaseBackend

    class ImageBackend(BaseBackend):  # type: ignore[misc]
        """The connection to a mounted image."""

        NAME = "image"

        def __init__(self, image: MountedImage) -> None:
            super().__init__(image.source.name)
            self._image = image
            self._encoding = "utf-8"  # LC_ALL=C.UTF-8 says so; testinfra would ask a Python of the image

        def get_sudo_command(self, command: str, sudo_user: str | None) -> str:
            """``host.sudo("www")`` takes that user of the image; no sudo of the image is asked."""
            # Within another, the inner one is asked first.
            return command if isinstance(command, _AsUser) else _AsUser(command, sudo_user or "root")

        def run(self, command: str, *args: str, **_: Any) -> CommandResult:
            """Run it by the image's own shell."""
            line = self.get_command(command, *args)
            user = line.user if isinstance(line, _AsUser) else "root"
            done = self._image.run(["/bin/sh", "-c", str(line)], user=user)
            return self.result(done.returncode, self.encode(line), done.stdout_bytes, done.stderr_bytes)

    return ImageBackend


class _AsUser(str):
    """A command line, and who is to run it: testinfra hands texts only from one of its methods to the next."""

    user: str

    def __new__(cls, line: str, user: str) -> Self:
        self = super().__new__(cls, line)
        self.user = user
        return self
