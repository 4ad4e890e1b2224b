"""The budgets that the project has set itself, and whether they are met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .rounds import Outcome, difference, ratio
from .sections import cycles, first_mount, held, unused
from .sections.section import markdown_table, milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .sections.section import Results


@dataclass(frozen=True, slots=True)
class Budget:
    """``measured`` over ``limit`` is 1 where the budget is just met. ``shown`` and ``bound`` are they as text."""

    what: str
    bound: str
    limit: float
    measured: float | None
    shown: str

    def row(self) -> tuple[str, str, str, str]:
        """Its row in the table."""
        if self.measured is None:
            return self.what, self.bound, "-", "not measured"
        share = max(self.measured / self.limit, 0)
        verdict = f"met ({share:.2f} of it)" if share <= 1 else f"**not met** ({share:.2f} times it)"
        return self.what, self.bound, self.shown, verdict


def table(found: Mapping[str, Results]) -> list[str]:
    """The budgets of the sections that were run."""
    rows = [budget.row() for budget in _budgets(found)]
    return markdown_table(("what", "budget", "measured", ""), rows, left=1)


def _budgets(found: Mapping[str, Results]) -> Iterator[Budget]:
    if "cycles" in found:
        yield from _cycles(found["cycles"])
    if "unused" in found:
        results = found["unused"]
        added = difference(results.outcome(unused.WITH), results.outcome(unused.WITHOUT), unused.PROCESSOR)
        yield _duration("plugin installed, not used (processor time)", added, 0.010)
    if "first" in found:
        raw = found["first"].outcome(first_mount.RAW)
        yield _duration("start of the helper", raw.median("helper"), 0.150)
        resident = found["first"].outcome(first_mount.FUSE).median("resident")
        megabytes = None if resident is None else resident / 1024
        yield Budget("helper, resident", "≤ 30 MB", 30, megabytes, "-" if megabytes is None else f"{megabytes:.1f} MB")
    if "held" in found:
        outcomes = found["held"].here
        one = [outcome.median("unmount") for name, outcome in outcomes.items() if held.KILLED not in name]
        everything = [outcome.median() for name, outcome in outcomes.items() if held.KILLED in name]
        yield _duration("undo of one mount, slowest case", _worst(one), 1.0)
        yield _duration("undo of all that a killed process held, slowest case", _worst(everything), 4.0)


def _cycles(results: Results) -> Iterator[Budget]:
    raw = results.outcome(cycles.FIXTURE_RAW)
    yield _factor("raw cycle", "system calls", raw, results.outcome(cycles.FLOOR), 2)
    yield _factor("qcow2 cycle by FUSE", "raw cycle", results.outcome(cycles.FIXTURE_FUSE), raw, 6)
    nbd, peer = results.outcome(cycles.FIXTURE_NBD, lab=True), results.outcome(cycles.QEMU_NBD, lab=True)
    faster = ratio(peer, nbd)
    yield Budget(
        "qcow2 cycle by NBD, in the lab",
        "≥ 3 x faster than qemu-nbd",
        1 / 3,
        None if faster is None else 1 / faster,
        "-" if faster is None else f"{faster:.1f} x faster",
    )


def _factor(what: str, base: str, one: Outcome, other: Outcome, limit: float) -> Budget:
    found = ratio(one, other)
    return Budget(what, f"≤ {limit:g} x the {base}", limit, found, "-" if found is None else f"{found:.2f} x")


def _duration(what: str, seconds: float | None, limit: float) -> Budget:
    return Budget(what, f"≤ {limit * 1000:.0f} ms", limit, seconds, milliseconds(seconds))


def _worst(medians: list[float | None]) -> float | None:
    return max((median for median in medians if median is not None), default=None)
