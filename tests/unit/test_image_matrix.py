"""The image matrix itself: nothing is missing from it, and the document shows all of it."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_imagemount.capabilities import TABLE
from tests.image_matrix.cells import RULES, Cell, all_pairs, cells, every_combination, lab_cells
from tests.image_matrix.covering import covering
from tests.image_matrix.recording import Result
from tests.image_matrix.table import BEGIN, END, Place, is_complete, render
from tests.image_matrix.values import DIMENSIONS

DOCUMENT = Path(__file__).parents[2] / "docs/images.md"


def test_every_two_values_that_make_sense_together_are_in_a_cell() -> None:
    covered = {pair for cell in cells() for pair in cell.pairs}
    possible = {pair for pair in all_pairs() if pair.reason_against is None}
    assert covered == possible


def test_those_of_common_kernels_are_so_without_the_lab() -> None:
    covered = {pair for cell in cells() if not cell.has_lab_value for pair in cell.pairs}
    in_lab = {(name, value.name) for name, values in DIMENSIONS.items() for value in values if value.in_lab}
    wanting = [
        pair
        for pair in all_pairs()
        if pair.reason_against is None and not {pair[:2], pair[2:]} & in_lab and pair not in covered
    ]
    assert wanting == []


def test_no_cell_is_there_twice_or_makes_no_sense() -> None:
    names = [str(cell) for cell in cells()]
    assert len(set(names)) == len(names)
    assert [cell for cell in cells() if cell.reason_against] == []
    assert len({str(cell) for cell in every_combination()}) == 18 * 8 * 8 * 7 * 3


def test_every_rule_excludes_something() -> None:
    reasons = {pair.reason_against for pair in all_pairs()} - {None}
    assert reasons == {rule.reason for rule in RULES}
    assert Cell("dmg", "gpt", "ext4", "none", "rw").reason_against == RULES[0].reason


def test_every_need_is_a_capability() -> None:
    assert {need for cell in cells() for need in cell.needs} - set(TABLE) == set()


def test_the_lab_has_every_format() -> None:
    assert {cell.format for cell in lab_cells()} == {cell.format for cell in cells()}


def test_a_covering_has_every_part_and_is_the_same_each_time() -> None:
    candidates = ["ab", "bc", "cd", "abcx", "d"]
    taken = covering(candidates, key=str, parts=frozenset)
    assert taken == ["abcx", "cd"] or taken == ["abcx", "d"]
    assert covering(list(reversed(candidates)), key=str, parts=frozenset) == taken


def green(name: str, some: tuple[Cell, ...]) -> Place:
    return Place(name, "6.18", (), {str(cell): Result(str(cell), "passed", 0.1, "loop") for cell in some})


def test_the_document_shows_every_pair_as_it_is_now() -> None:
    shown = DOCUMENT.read_text().partition(BEGIN)[2].partition(END)[0]
    expected = render([green("here", cells())])
    assert "| not run |" not in shown
    assert _without_places(shown) == _without_places(expected)
    assert f"{len(cells())} of {len(cells())} images" in shown


def _without_places(text: str) -> list[str]:
    """The lines of tables and reasons, with the same mark for every place where a pair was proven."""
    lines = [line for line in text.splitlines() if re.match(r"[|#0-9]\S* ", line) and " images were " not in line]
    return [re.sub(r"(?<=\| )(here, lab|here|lab)(?= \|)", "+", line) for line in lines]


def test_one_cell_that_failed_or_did_not_run_is_told() -> None:
    assert is_complete([green("here", cells())])
    assert not is_complete([green("here", cells()[1:])])
    assert is_complete([green("here", cells()[1:]), green("lab", cells()[:1])])
    first = str(cells()[0])
    failed = Place("lab", "6.1", (), {first: Result(first, "failed", 1)})
    assert not is_complete([green("here", cells()), failed])
