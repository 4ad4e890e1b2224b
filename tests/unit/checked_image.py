"""Checks run on a plain folder that stands for a mounted image: they need no privilege."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_imagemount.checks.kinds import problems_of
from pytest_imagemount.checks.plan import load_plans
from pytest_imagemount.checks.problem import CheckFailed
from pytest_imagemount.checks.text import failure_text
from pytest_imagemount.config import Settings
from pytest_imagemount.image_option import ImageChoice
from pytest_imagemount.mounted_image import MountedImage
from pytest_imagemount.session import MountSession
from pytest_imagemount.shared_images import SharedImage
from tests.unit.trees import facts_of

if TYPE_CHECKING:
    from collections.abc import Mapping


class FolderImage(SharedImage):
    """An image whose file system is the folder ``tree``; its disk is the image file ``disk``."""

    def __init__(self, tree: Path, disk: Path = Path("/images/disk.qcow2")) -> None:
        super().__init__(ImageChoice(disk, disk.name), MountSession(Settings()))
        facts = facts_of(tree, source=disk, format="qcow2", partition=2, label="root", mode="ro", backend="fuse")
        self._image = MountedImage(facts, lambda: None)

    @property
    def image(self) -> MountedImage:
        return self._image

    @property
    def mounted(self) -> MountedImage | None:
        return self._image


def write_tree(folder: Path, files: Mapping[str, str]) -> None:
    """Write ``files``, path to text, below ``folder``; a text ``-> target`` makes a link."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            path.symlink_to(text.removeprefix("-> "))
        else:
            path.write_text(text)


def failures(yaml: str, shared: SharedImage, folder: Path) -> str:
    """What a user reads when the checks in ``yaml`` are run, a text for each that fails; empty where all pass."""
    file = folder / "base.imagecheck.yaml"
    file.write_text(yaml)
    told = []
    for plan in load_plans(file, file.name):
        for check in plan.checks:
            if problems := problems_of(check, shared):
                told.append(failure_text(check, shared, shared.choice, CheckFailed(problems)))
    return "\n".join(told)
