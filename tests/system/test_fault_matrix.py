"""Whatever ends a test run, at any moment of a mount, nothing is left: the short form of ``./tests/faults``."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fault_matrix.cells import BACKENDS, NEEDS, Cell, cells, every_combination, exclusions
from tests.fault_matrix.events import EVENTS, Moment
from tests.fault_matrix.lane import template
from tests.fault_matrix.matrix import Matrix, missing_for
from tests.fault_matrix.table import BEGIN, END

if TYPE_CHECKING:
    from collections.abc import Iterator

# In the lab only what needs it: the rest runs ten times faster outside.
IN_LAB = "IMAGEMOUNT_IN_LAB" in os.environ
SHORT = [cell for cell in cells(short=True) if cell.backend == "nbd" or not IN_LAB]


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> None:
    """In place of the check of all system tests: other cells run while one is looked at, and each has its own check."""


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest) -> Iterator[Matrix]:
    """The cells of the selected tests, under way from the first one's start on, several at a time."""
    parameters = [getattr(item, "callspec", None) for item in request.session.items if item.path == request.path]
    chosen: list[Cell] = [each.params["cell"] for each in parameters if each and "cell" in each.params]
    with Matrix(cell for cell in chosen if missing_for(cell.backend) is None) as matrix:
        yield matrix


@pytest.mark.parametrize(
    "cell", [pytest.param(cell, id=str(cell), marks=pytest.mark.needs(*NEEDS[cell.backend])) for cell in SHORT]
)
def test_nothing_is_left_after(cell: Cell, matrix: Matrix) -> None:
    result = matrix.futures[str(cell)].result()
    assert result.green, f"{result}\n{result.output}"


@pytest.mark.needs("mke2fs")
def test_the_image_that_cells_copy_has_no_name_to_be_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    image = template.__wrapped__("raw")
    try:
        assert list(tmp_path.iterdir()) == []
        assert Path(shutil.copy(image, tmp_path / "copy.raw")).stat().st_size > 20 << 20
    finally:
        os.close(int(image.name))


def test_the_matrix_is_complete() -> None:
    combinations = list(every_combination())
    assert len(combinations) == len(EVENTS) * len(Moment) * len(BACKENDS) * 2
    assert len({str(cell) for cell in combinations}) == len(combinations)
    reasons = {cell.reason_against for cell in combinations} - {None}
    assert reasons == {reason for _, reason in exclusions()}
    assert all(what and reason for what, reason in exclusions())


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_short_form_has_every_event_and_every_moment(backend: str) -> None:
    short, full = ([cell for cell in cells(short=short) if cell.backend == backend] for short in (True, False))
    assert {cell.event.name for cell in short} == {cell.event.name for cell in full}
    assert {cell.moment for cell in short} == {cell.moment for cell in full}


def test_the_document_has_a_row_for_every_event() -> None:
    document = (Path(__file__).parents[2] / "docs/teardown.md").read_text()
    rows = document.partition(BEGIN)[2].partition(END)[0]
    assert [event.title for event in EVENTS if f"| {event.title} |" not in rows] == []
