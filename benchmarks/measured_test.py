"""The test that :mod:`.fixture` runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_imagemount.plugin import MountFactory


def test_measured(mounted_image: MountFactory, work: Callable[[MountFactory], None]) -> None:
    work(mounted_image)
