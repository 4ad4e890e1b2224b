"""``imagemount check --init``: a first check file, from what an image holds; it passes on that image."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Settings
from ..engine.text import printable
from ..errors import ImageMountError, RequestInvalid
from ..image_files import find_image
from ..image_option import CHECK_FILES, ImageChoice, partition_of
from ..session import MountSession
from ..shared_images import SharedImage
from .first_sections import SECTIONS
from .text import cause_line

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD = """\
# Checks of {image}, written from what it held by `imagemount check --init`.
# Keep what must stay so, remove the rest. Run it:
#
#   imagemount check {image} {file}
#   pytest --image {image} {file}
"""


def write_first_file(image: str, files: Sequence[str], *, partition: str, format: str | None) -> int:
    """Write the file to the first of ``files``, or to stdout; the exit status, 0.

    :raises RequestInvalid: the file is there already, or cannot be written, or there are several, or it is not named as
        check files are
    :raises ImageMountError: the image is not there, or cannot be mounted
    """
    target = _target(files)
    settings = Settings.from_environment()
    folders = settings.command_folders
    choice = ImageChoice(find_image(image, folders), image, partition_of(partition), format)
    with MountSession(settings, test="imagemount check --init", folders=folders) as mounts:
        text = first_file(SharedImage(choice, mounts), str(target) if target else f"checks{CHECK_FILES[0]}")
    if target is None:
        sys.stdout.write(text)
        return 0
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise _refused(target, f"cannot be written: {error.strerror}") from None
    print(f"written: {target}")
    return 0


def _target(files: Sequence[str]) -> Path | None:
    """The file to write, as far as can be told before the image is mounted; None for stdout."""
    if not files:
        return None
    if len(files) > 1:
        raise _refused(" ".join(files), "--init writes one file")
    target = Path(files[0])
    if not target.name.endswith(CHECK_FILES):
        raise _refused(target, f"the name must end in {CHECK_FILES[0]}")
    if target.exists():
        raise _refused(target, "it is there already, and is not overwritten")
    if not target.parent.is_dir():
        raise _refused(target, f"there is no folder {target.parent}")
    return target


def _refused(file: str | Path, reason: str) -> RequestInvalid:
    return RequestInvalid(argument="FILE", value=str(file), reason=reason)


def first_file(shared: SharedImage, file: str) -> str:
    """The text of a check file for ``shared``; ``file`` is the name that it will have.

    :raises ImageMountError: the image cannot be mounted
    """
    _ = shared.image  # what cannot be mounted is an error, and not a fact that is missing
    image, file = (printable(shlex.quote(name)) for name in (shared.choice.name, file))
    parts = [_HEAD.format(image=image, file=file)]
    for name, write in SECTIONS.items():
        try:
            lines = write(shared)
        except (ImageMountError, OSError) as error:
            lines = [f"# {name}: {cause_line(error)}"]
        if lines:
            parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
