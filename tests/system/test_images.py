"""Every format, table, file system, volume and mode: the cells of ``./tests/images``."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.undo import wait_until
from pytest_imagemount.pending import LIVE
from tests.image_matrix.building import Builder
from tests.image_matrix.cells import Cell, cells, lab_cells
from tests.image_matrix.running import check_cell
from tests.leaks import snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_imagemount.plugin import MountFactory

# In the lab only what needs it: the rest runs faster outside.
CELLS = lab_cells() if "IMAGEMOUNT_IN_LAB" in os.environ else cells()


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """In place of the check of all system tests: only what is this run's own, since the table hangs on every one."""
    yield
    assert wait_until(lambda: not own(), 2), "left behind:\n  " + "\n  ".join(own())


def own() -> list[str]:
    """What there is of this process's helper, whose folder, and by it its devices, are called after its pid."""
    token = re.compile(rf"(?<!\d){LIVE.helper}-[0-9a-f]{{8}}")
    return sorted(line for line in snapshot(own_processes=False) if token.search(line))


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return Builder(tmp_path_factory.mktemp("blocks"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """For the image, and for what it is unpacked to; gone after the test, since there are hundreds of them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    "cell", [pytest.param(cell, id=str(cell), marks=pytest.mark.needs(*cell.needs)) for cell in CELLS]
)
def test_an_image_is_mounted_and_read_and_written_to(
    cell: Cell,
    builder: Builder,
    folder: Path,
    mounted_image: MountFactory,
    record_property: Callable[[str, object], None],
) -> None:
    record_property("backend", check_cell(cell, builder.build(cell, folder), mounted_image))
