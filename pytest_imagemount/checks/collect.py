"""Check files as pytest collects and runs them: one test for each check and image."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from ..engine.text import printable
from ..errors import ImageMountError
from ..image_option import ImageChoice, chosen_images, no_image, partition_of, report_images, short_names
from .kinds import problems_of
from .plan import load_plans
from .problem import CheckFailed
from .text import failure_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from ..shared_images import SharedImage
    from .plan import Check, ImageKey, Plan

_TOLD = (CheckFailed, ImageMountError, OSError)
"""What a user is told in words; all else is a fault of ours, and shown as Python shows it."""


class CheckFile(pytest.File):
    """An ``*.imagecheck.yaml`` file."""

    def collect(self) -> Iterator[CheckItem]:
        """Its checks, for the first image, then for the next."""
        shown = str(self.path)
        if self.path.is_relative_to(self.config.rootpath):
            shown = str(self.path.relative_to(self.config.rootpath))
        try:
            plans = load_plans(self.path, shown)
        except ImageMountError as error:
            raise self.CollectError(str(error)) from None
        report_images(self.config)
        given, names = chosen_images(self.config), _own_names(plans)
        seen: Counter[str] = Counter()  # two documents may check one thing of one image
        for plan in plans:
            for choice in images_for(plan.image, given, names):
                for check in plan.checks:
                    name = _item_name(check, choice, plan.image)
                    seen[name] += 1
                    if seen[name] > 1:
                        name = f"{name[:-1]}#{seen[name]}]"
                    item: CheckItem = CheckItem.from_parent(self, name=name, check=check, choice=choice)
                    yield item


class CheckItem(pytest.Item):
    """One check of one image; ``image_choice`` is None where no image was given."""

    def __init__(self, *, check: Check, choice: ImageChoice | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.check = check
        self.image_choice = choice
        self.shared: SharedImage | None = None

    def setup(self) -> None:
        """Have the image at hand; it is mounted when the check first asks for it."""
        from ..shared_images import shared_images

        if self.image_choice is None:
            no_image(self.config, f"{self.path.name} names none")
        self.shared = shared_images(self.session).take(self.image_choice)

    def runtest(self) -> None:
        """Run the check.

        :raises CheckFailed: with all its problems
        """
        assert self.shared is not None
        if found := problems_of(self.check, self.shared):
            raise CheckFailed(found)

    def teardown(self) -> None:
        """Let go of the image, which may be unmounted before the next test with it."""
        self.shared = None

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The problems, or why the image could not be looked at, with no Python in it; else as pytest does."""
        if isinstance(excinfo.value, _TOLD) and not self.config.getoption("fulltrace", False):
            return failure_text(self.check, self.shared, self.image_choice, excinfo.value)
        own = excinfo.traceback.filter(lambda entry: __package__.split(".")[0] in str(entry.path))
        excinfo.traceback = own or excinfo.traceback
        return super().repr_failure(excinfo, style)

    def to_json(self, excinfo: pytest.ExceptionInfo[BaseException] | None) -> dict[str, Any]:
        """The check and what came of it, as JSON values; image and partition as far as they are known."""
        mounted = self.shared.mounted if self.shared else None
        error = excinfo.value if excinfo else None
        problems = error.problems if isinstance(error, CheckFailed) else ()
        return {
            "check": self.check.name,
            "section": self.check.section,
            "subject": self.check.subject,
            "file": self.check.file,
            "line": self.check.line,
            "why": self.check.why,
            "image": str(self.image_choice.path) if self.image_choice else None,
            "format": mounted.format if mounted else None,
            "partition": mounted.facts.part if mounted else None,
            "fstype": mounted.fstype if mounted else None,
            "told": isinstance(error, _TOLD),
            "problems": [problem.to_json() for problem in problems],
        }

    def reportinfo(self) -> tuple[Any, int, str]:
        """File and line, counted from 0, and a title: of a name pytest would show ``/a.conf`` as ``/a::conf``."""
        return self.path, self.check.line - 1, self.name.replace(":", " ", 1)


def _item_name(check: Check, choice: ImageChoice | None, key: ImageKey) -> str:
    """``files:/etc/shadow[disk.qcow2]``; with the partition, where the file gives one."""
    place = "no image" if choice is None else choice.name
    place += f":{key.partition}" if key.partition else ""
    return printable(f"{check.name}[{place}]").replace("::", ":")


def _own_names(plans: Iterable[Plan]) -> dict[Path, str]:
    """What the images that the documents name are called."""
    paths = list(dict.fromkeys(plan.image.path for plan in plans if plan.image.path is not None))
    return dict(zip(paths, short_names(paths), strict=True))


def images_for(key: ImageKey, given: Sequence[ImageChoice], names: Mapping[Path, str]) -> list[ImageChoice | None]:
    """The images that a document is run with: the given ones, else its own, else None.

    The command line says which image, a document says which of its partitions it is for.

    :param names: what the images that documents name are called
    """
    choices = list(given)
    if not choices and key.path is not None:
        choices = [ImageChoice(path=key.path, name=names[key.path], format=key.format)]
    if not choices:
        return [None]
    return [
        choice._replace(
            partition=partition_of(key.partition) if key.partition else choice.partition, mode=key.mode or choice.mode
        )
        for choice in choices
    ]
