"""What a report says about the image that a test was run with: properties, and below a failure what is on the disk."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING, Any

import pytest

from .engine.text import printable
from .errors import ImageMountError, describe_part
from .image_option import CHOICE
from .shared_images import known_images

if TYPE_CHECKING:
    from collections.abc import Generator

    from .image_option import ImageChoice
    from .shared_images import SharedImage

_NAME, _PATH, _DIGEST = "image", "image_path", "image_sha256"
_FORMAT, _PARTITION = "image_format", "image_partition"


class ImageReports:
    """Registered where a run has images: for JUnit's properties, and for the section below a failure.

    The digest is taken by the process that writes the XML file, and by none where none is written: once an image,
    however many workers there are.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._wants_digest = bool(config.getoption("xmlpath", None)) and not hasattr(config, "workerinput")
        self._digests: dict[tuple[str, int, int], str] = {}
        self._described: set[ImageChoice] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        choice = choice_of_item(item)
        if choice is None:
            return report
        images = known_images(item.session)
        shared = images.known(choice) if images else None
        # Each report has a list of its own: those of the phases are made from the item's list, one after the other.
        names = {name for name, _ in item.user_properties}
        new = [each for each in _properties(choice, shared) if each[0] not in names]
        item.user_properties += new
        report.user_properties += new
        if describe := getattr(item, "to_json", None):
            vars(report)["imagecheck"] = describe(
                call.excinfo
            )  # travels from workers, as every attribute of JSON values does
        if report.failed and shared is not None:
            report.sections.append((f"image {printable(choice.name)}", self._describe(shared)))
        return report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Before the XML file's reporter, in the process that has it."""
        if self._wants_digest and report.when == "teardown":
            known: dict[str, Any] = dict(report.user_properties)
            if _PATH in known and (digest := self._digest(known[_PATH])):
                report.user_properties.append((_DIGEST, digest))

    def _describe(self, shared: SharedImage) -> str:
        """What was mounted, and the first time also what is on the disk, as lines."""
        lines = [_mounted(shared)]
        if shared.choice not in self._described:
            self._described.add(shared.choice)
            lines.append(_layout(shared))
        return "\n".join(lines)

    def _digest(self, path: str) -> str:
        """Of the image file as it is now; empty where it is gone, may not be read here, or is a pipe."""
        try:
            with open(path, "rb", opener=_open_without_waiting) as file:
                status = os.fstat(file.fileno())
                if not (stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)):
                    return ""
                key = path, status.st_size, status.st_mtime_ns
                if key not in self._digests:
                    self._digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
                return self._digests[key]
        except OSError:
            return ""


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def choice_of_item(item: pytest.Item) -> ImageChoice | None:
    """The image that a test is run with."""
    callspec = getattr(item, "callspec", None)
    found: ImageChoice | None = callspec.params.get(CHOICE) if callspec else getattr(item, "image_choice", None)
    return found


def _properties(choice: ImageChoice, shared: SharedImage | None) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = [(_NAME, choice.name), (_PATH, str(choice.path))]
    image = shared.mounted if shared else None
    if image is not None:
        part = "none" if image.facts.part is None else printable(str(image.facts.part))
        found += [(_FORMAT, image.format), (_PARTITION, part)]
    elif shared and "inspection" in vars(shared):
        found.append((_FORMAT, shared.inspection.format))
    return found


def _mounted(shared: SharedImage) -> str:
    image = shared.mounted
    if image is None:
        return "not mounted"
    place = printable(describe_part(image.facts.part))
    label = f', label "{printable(image.label)}"' if image.label else ""
    return f"mounted: {place} ({image.fstype}{label}), {image.mode}, by {image.backend} as {image.device}"


def _layout(shared: SharedImage) -> str:
    from .inspection import render
    from .terminal import Style

    try:
        return render(shared.inspection, Style(colour=False, unicode=False))
    except (ImageMountError, OSError) as error:
        return f"cannot be inspected: {error}"
