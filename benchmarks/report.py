"""What was measured, as Markdown, and its place in the documentation."""

from __future__ import annotations

import os
import platform
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_imagemount import programs
from pytest_imagemount.engine.mountinfo import mounts
from pytest_imagemount.errors import ProgramFailed

from . import budgets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .sections.section import Results, Section

BEGIN, END = "<!-- measured: begin (written by ./benchmarks/run) -->", "<!-- measured: end -->"


def render(
    sections: Sequence[Section],
    found: Mapping[str, Results],
    *,
    machine: str,
    lab_missing: str,
    pictures: Sequence[str],
) -> str:
    """The whole report; ``pictures`` are the keys of the sections that have one."""
    lines = [machine, ""]
    if lab_missing:
        lines += [f"**The lab's part is missing:** {lab_missing}", ""]
    lines += ["### Budgets", "", *budgets.table(found), ""]
    for section in sections:
        lines += [f"### {section.title}", "", section.about, "", *section.table(found[section.key]), ""]
        if section.key in pictures:
            lines += [f"![{section.title}]({picture_name(section.key)})", ""]
    return "\n".join(lines)


def picture_name(key: str) -> str:
    """The file name of a section's picture."""
    return f"benchmarks-{key}.svg"


def describe_machine() -> str:
    """The machine and the moment, in a sentence. The load is that before the first round."""
    load, _, _ = os.getloadavg()
    try:
        qemu = programs.run(["qemu-img", "--version"]).decode().split()[2]
    except ProgramFailed:
        qemu = "not installed"
    date = time.strftime("%Y-%m-%d", time.gmtime())
    kernel = platform.release().partition("-")[0]  # what follows is a build's name
    return (
        f"{date}: Linux {kernel} on {os.cpu_count()} processors ({_processor()}), Python "
        f"{platform.python_version()}, QEMU {qemu}; /run is on {_filesystem_of('/run')}, the images are on "
        f"{_filesystem_of(tempfile.gettempdir())}; load average {load:.2f} before the first round."
    )


def _filesystem_of(path: str) -> str:
    number = Path(path).stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    return next((entry.fstype for entry in mounts() if entry.device == device), "a file system of its own")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def update(document: Path, report: str) -> None:
    """Put ``report`` between the markers in ``document``; a document without them is started with a heading."""
    if document.exists():
        text = document.read_text()
        before, _, rest = text.partition(BEGIN)
        _, found, after = rest.partition(END)
        if not found:
            raise ValueError(f"{document} lacks the lines {BEGIN!r} and {END!r}")
    else:
        before, after = "# Benchmarks\n\n", "\n"
    document.write_text(f"{before}{BEGIN}\n\n{report}\n{END}{after}")
    give_to_owner(document)


def give_to_owner(path: Path) -> None:
    """Give a file that root has written to the owner of its folder: under sudo it is the user's."""
    owner = path.parent.stat()
    os.chown(path, owner.st_uid, owner.st_gid)
