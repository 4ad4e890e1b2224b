"""The installed system in an image, for ``imagemount inspect --os``: its root is mounted read-only for the moment."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .engine.text import printable
from .errors import ImageMountError, describe_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .image_files import BackingChoice
    from .inspection import Inspection


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """An installed system, as its os-release(5) and its programs tell; or ``error``, why it could not be told.

    ``partition`` is where its root is, ``lv:vg/root`` for a logical volume, None for the image itself.
    ``architecture`` is a name of uname(2).
    """

    partition: int | str | None = None
    id: str | None = None
    version_id: str | None = None
    name: str | None = None
    pretty_name: str | None = None
    architecture: str | None = None
    error: str | None = None

    def lines(self) -> Iterator[str]:
        """Text that is safe to print, indented by two."""
        if self.error:
            yield from (f"  {printable(line)}" for line in self.error.splitlines())
            return
        yield f"  {printable(self.pretty_name or '')}"
        facts = {"id": self.id, "version": self.version_id, "architecture": self.architecture}
        yield "  " + ", ".join(f"{name} {printable(value)}" for name, value in facts.items() if value)
        yield f"  in {printable(describe_part(self.partition))}"

    def to_json(self) -> dict[str, Any]:
        """JSON values, null for what is not known."""
        return asdict(self)


def read_system(
    found: Inspection,
    partition: int | str,
    *,
    format: str | None = None,
    architecture: str | None = None,
    backing: BackingChoice = "refuse",
) -> System:
    """The system whose root is in ``partition`` of the image."""
    from .contents.operating_system import read_os
    from .library import mount_image
    from .mounted_system import root_elsewhere

    options: dict[str, Any] = {"format": format, "architecture": architecture, "backing": backing}
    try:
        with ExitStack() as mounts:
            image = mounts.enter_context(mount_image(found.path, partition, **options))
            if elsewhere := root_elsewhere(image, partition):
                image.unmount()
                image = mounts.enter_context(mount_image(found.path, **elsewhere, **options))
            facts = read_os(image / "/")
            return System(
                partition=image.facts.part,
                id=facts.id,
                version_id=facts.version_id,
                name=facts.name,
                pretty_name=facts.pretty_name,
                architecture=facts.architecture,
            )
    except ImageMountError as error:
        return System(error=str(error))
