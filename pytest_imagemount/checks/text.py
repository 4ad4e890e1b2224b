"""What a user reads when a check fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engine.text import printable
from ..errors import ImageMountError, describe_part
from .problem import CheckFailed, render_problems

if TYPE_CHECKING:
    from ..image_option import ImageChoice
    from ..shared_images import SharedImage
    from .plan import Check

_TITLES = {
    "os": "operating system",
    "files": "file",
    "packages": "package",
    "users": "user",
    "groups": "group",
    "services": "service",
    "fstab": "fstab entry",
    "kernel-cmdline": "kernel command line",
    "disk": "disk",
    "partitions": "partition",
    "free-space": "free space",
    "rules": "rule",
}

_OF_DISK = ("disk", "partitions")


def failure_text(check: Check, shared: SharedImage | None, choice: ImageChoice | None, error: BaseException) -> str:
    """The subject, the image and partition, each problem with what is expected and found, the reason, file and line."""
    title = " ".join(part for part in (_TITLES[check.section], check.subject) if part)
    place = place_text(None if check.section in _OF_DISK else shared, choice)
    lines = [f"{printable(title)} in {place}"]
    if isinstance(error, CheckFailed):
        lines.append(render_problems(error.problems))
    else:
        said = shared.tell(error) if shared and isinstance(error, ImageMountError) else cause_text(error)
        lines += [f"  {line}" for line in said.splitlines()]
    if check.why:
        lines.append(f"  why: {printable(check.why)}")
    lines.append(f"  see  {check.file}:{check.line}")
    return "\n".join(lines)


def place_text(shared: SharedImage | None, choice: ImageChoice | None) -> str:
    """``disk.qcow2, partition 2 (ext4, ro)``, or as much of it as is known."""
    if choice is None:
        return "no image"
    name = printable(choice.name)
    image = shared.mounted if shared else None
    if image is None:
        return name
    part = image.facts.part
    place = "" if part is None else f", {printable(describe_part(part))}"
    return f"{name}{place} ({image.fstype}, {image.mode})"


def cause_text(error: BaseException) -> str:
    """What kept a check from its answer."""
    if isinstance(error, ImageMountError):
        return str(error)
    reason = getattr(error, "strerror", None) or str(error)
    name = getattr(error, "filename", None)
    return f"cannot be read: {printable(f'{name}: {reason}' if name else reason)}"


def cause_line(error: BaseException) -> str:
    """The same in one line, without the places that were looked at."""
    return printable(cause_text(error).splitlines()[0].removesuffix("; looked at:"))
