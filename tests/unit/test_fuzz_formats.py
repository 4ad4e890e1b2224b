"""The fuzz targets for image formats: every seed, every case that was ever found, and a few changes to them.

``./tests/fuzz/run`` runs them for longer, guided by what code is reached.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz import compressed, formats
from tests.fuzz.mutations import mutated

FOLDER = Path(__file__).parent.parent / "fuzz/cases"
TARGETS = {"formats": formats, "compressed": compressed}


def cases(target: str) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in sorted((FOLDER / target).glob("*"))}
    return {**TARGETS[target].seeds(), **found}


@pytest.mark.parametrize(("target", "case"), [(target, case) for target in TARGETS for case in cases(target)])
def test_a_known_case_holds(target: str, case: str) -> None:
    TARGETS[target].fuzz_one(cases(target)[case])


@pytest.mark.parametrize(("target", "count"), [("formats", 800), ("compressed", 1500)])
def test_changed_cases_hold(target: str, count: int) -> None:
    known = list(cases(target).values())
    chance = random.Random(20)  # another number, other changes: the same in each run
    for _ in range(count):
        TARGETS[target].fuzz_one(mutated(chance.choice(known), known, chance))


def test_changes_differ_and_can_be_repeated() -> None:
    known = list(formats.seeds().values())
    one, same, other = (
        [mutated(known[0], known, chance) for _ in range(50)]
        for chance in (random.Random(1), random.Random(1), random.Random(2))
    )
    assert one == same
    assert one != other
    assert len({*one, known[0]}) > 40
    assert mutated(b"", [b""], random.Random(1)) is not None
