"""``imagemount check --init``: a first check file, from what an image holds; it passes on that image."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Settings
from ..engine.text import printable
from ..errors import ImageMountError, RequestInvalid
from ..image_option import CHECK_FILES, ImageChoice, partition_of
from ..session import MountSession
from ..shared_images import SharedImage
from .first_sections import SECTIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD = """\
# Checks of {name}, written from what it held by `imagemount check --init`.
# Keep what must stay so, remove the rest. Run it:
#
#   imagemount check {name} {file}
#   pytest --image {name} {file}
"""


def write_first_file(image: Path, files: Sequence[str], *, partition: str, format: str | None) -> int:
    """Write the file to the first of ``files``, or to stdout; the exit status, 0.

    :raises RequestInvalid: the file is there already, or there are several, or it is not named as check files are
    :raises ImageMountError: the image cannot be mounted
    """
    if len(files) > 1:
        raise RequestInvalid(argument="FILE", value=" ".join(files), reason="--init writes one file")
    target = Path(files[0]) if files else None
    if target is not None and not target.name.endswith(CHECK_FILES):
        raise RequestInvalid(argument="FILE", value=str(target), reason=f"the name must end in {CHECK_FILES[0]}")
    if target is not None and target.exists():
        raise RequestInvalid(argument="FILE", value=str(target), reason="it is there already, and is not overwritten")
    settings = Settings.from_environment()
    choice = ImageChoice(image, image.name, partition_of(partition), format)
    with MountSession(settings, test="imagemount check --init", folders=(Path.cwd(),)) as mounts:
        text = first_file(SharedImage(choice, mounts), str(target) if target else f"checks{CHECK_FILES[0]}")
    if target is None:
        sys.stdout.write(text)
    else:
        target.write_text(text, "utf-8")
        print(f"written: {target}")
    return 0


def first_file(shared: SharedImage, file: str) -> str:
    """The text of a check file for ``shared``; ``file`` is the name that it will have.

    :raises ImageMountError: the image cannot be mounted
    """
    _ = shared.image  # what cannot be mounted is an error, and not a fact that is missing
    parts = [_HEAD.format(name=printable(shared.choice.name), file=file)]
    for name, write in SECTIONS.items():
        try:
            lines = write(shared)
        except ImageMountError as error:
            why = str(error).splitlines()[0].removesuffix("; looked at:")
            lines = [f"# {name}: {printable(why)}"]
        if lines:
            parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
