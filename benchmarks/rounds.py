"""The harness: cases in interleaved rounds, and the medians and ratios of what they took.

One case after the other would compare different minutes of a machine whose speed drifts. Here every round runs every
case once, in an order shuffled anew for each round, so that no case always runs in another's wake. A ratio is the
median of the ratios within the rounds, where both sides met the same machine.
"""

from __future__ import annotations

import random
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from pytest_imagemount.errors import ImageMountError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_SEED = 20


@dataclass(frozen=True, slots=True)
class Case:
    """Something to be measured.

    :param run: one round of it; gives what was measured, by name: seconds, unless the name says otherwise
    :param rounds: how many rounds it takes part in, spread evenly over all; None is every one
    :param warm_ups: rounds before the first that counts
    :param missing: why it cannot run here; it is then not run, and its row says so
    :param peer: it is somebody else's, whose failure is a result as well
    """

    name: str
    run: Callable[[], Mapping[str, float]]
    rounds: int | None = None
    warm_ups: int = 1
    missing: str = ""
    peer: bool = False


@dataclass(slots=True)
class Outcome:
    """What the rounds of one case gave: measure → round → value.

    ``missing``: why it gave nothing, or stopped. ``broken``: that is our own failure.
    """

    samples: dict[str, dict[int, float]] = field(default_factory=dict)
    missing: str = ""
    broken: bool = False

    def values(self, measure: str = "seconds") -> list[float]:
        """The values of all rounds."""
        return list(self.samples.get(measure, {}).values())

    def median(self, measure: str = "seconds") -> float | None:
        """None where nothing was measured."""
        values = self.values(measure)
        return statistics.median(values) if values else None

    def spread(self, measure: str = "seconds") -> float | None:
        """The interquartile range; None for fewer than four rounds."""
        values = self.values(measure)
        if len(values) < 4:
            return None
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return high - low

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return {"samples": self.samples, "missing": self.missing, "broken": self.broken}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """What :meth:`to_json` described."""
        samples = {name: {int(key): number for key, number in got.items()} for name, got in value["samples"].items()}
        return cls(samples, value["missing"], value["broken"])


Outcomes = dict[str, Outcome]
"""By the name of the case, in the order in which they are shown."""


def ratio(one: Outcome, other: Outcome, measure: str = "seconds") -> float | None:
    """How many times ``one`` is of ``other``: the median over the rounds that both took part in; None without any."""
    return _paired(one, other, measure, lambda left, right: left / right)


def difference(one: Outcome, other: Outcome, measure: str = "seconds") -> float | None:
    """By how much ``one`` exceeds ``other``: the median over the rounds that both took part in; None without any."""
    return _paired(one, other, measure, lambda left, right: left - right)


def timed(cycle: Callable[[], object]) -> Callable[[], Mapping[str, float]]:
    """``cycle`` as :attr:`Case.run`: the seconds that it took."""

    def run() -> Mapping[str, float]:
        start = time.perf_counter_ns()
        cycle()
        return {"seconds": (time.perf_counter_ns() - start) / 1e9}

    return run


def interleave(cases: Iterable[Case], rounds: int) -> Outcomes:
    """Run ``cases`` in ``rounds`` interleaved rounds. A case that fails says why in its outcome, and is left out."""
    everyone = list(cases)
    outcomes = {case.name: Outcome(missing=case.missing) for case in everyone}
    for case in everyone:
        for _ in range(case.warm_ups):
            _run(case, outcomes[case.name], None)
    order = random.Random(_SEED)
    for number in range(rounds):
        taking_part = [case for case in everyone if _takes_part(case, number, rounds)]
        order.shuffle(taking_part)
        for case in taking_part:
            _run(case, outcomes[case.name], number)
    return outcomes


def _run(case: Case, outcome: Outcome, number: int | None) -> None:
    if outcome.missing:
        return
    try:
        measured = case.run()
    except (ImageMountError, OSError) as error:
        outcome.missing = f"failed: {error}"
        outcome.broken = not case.peer
        return
    if number is not None:
        for measure, value in measured.items():
            outcome.samples.setdefault(measure, {})[number] = value


def _takes_part(case: Case, number: int, rounds: int) -> bool:
    wanted = rounds if case.rounds is None else min(case.rounds, rounds)
    return (number + 1) * wanted // rounds > number * wanted // rounds


def _paired(one: Outcome, other: Outcome, measure: str, compare: Callable[[float, float], float]) -> float | None:
    left, right = one.samples.get(measure, {}), other.samples.get(measure, {})
    pairs = [compare(left[number], right[number]) for number in left if number in right]
    return statistics.median(pairs) if pairs else None
