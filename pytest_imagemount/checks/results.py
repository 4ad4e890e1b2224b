"""What came of a run of checks, and how ``imagemount check`` shows it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from ..engine.text import printable

if TYPE_CHECKING:
    from pathlib import Path

    from ..terminal import Style

_RANK = {"passed": 0, "skipped": 1, "failed": 2}


@dataclass
class Result:
    """One check that was run. ``outcome`` is ``passed``, ``failed`` or ``skipped``; ``seconds`` is all its time."""

    facts: dict[str, Any]
    outcome: str = "passed"
    text: str = ""
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        message = {} if self.outcome == "passed" else {"message": self.text}
        facts = {name: value for name, value in self.facts.items() if name != "told"}
        return {**facts, "outcome": self.outcome, "seconds": round(self.seconds, 4), **message}


@dataclass(eq=False)  # pytest before 9 takes no plugin that cannot be hashed
class Results:
    """A pytest plugin that takes the reports of check files, in the process that the user started."""

    by_node: dict[str, Result] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A check file that is not as it must be."""
        if report.failed:
            self.mistakes.append(str(report.longrepr))

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """No letters while it runs."""
        return (report.outcome, "", "") if hasattr(report, "imagecheck") else None

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Setup, run and teardown of one check, each of which may fail."""
        facts: dict[str, Any] | None = getattr(report, "imagecheck", None)
        if facts is None:
            return
        result = self.by_node.setdefault(report.nodeid, Result(facts))
        result.seconds += report.duration
        if report.when == "call" or report.outcome != "passed":
            result.facts = facts
        if _RANK[report.outcome] > _RANK[result.outcome]:
            result.outcome = report.outcome
            result.text = _text(report)

    def ordered(self) -> list[Result]:
        """In the order of the check files, whatever worker ran them."""
        files = list(dict.fromkeys(result.facts["file"] for result in self.by_node.values()))
        return sorted(self.by_node.values(), key=lambda one: (files.index(one.facts["file"]), one.facts["line"]))

    def counts(self) -> Counter[str]:
        """How many checks had which outcome."""
        return Counter(result.outcome for result in self.by_node.values())

    def to_json(self, image: Path) -> dict[str, Any]:
        """All as JSON values: ``image``, ``counts``, ``checks``."""
        counts = {outcome: self.counts()[outcome] for outcome in _RANK}
        return {"image": str(image), "counts": counts, "checks": [result.to_json() for result in self.ordered()]}


def render(results: Results, image: Path, style: Style, *, quiet: bool, seconds: float) -> str:
    """The results as text: a line for the passed checks of each section, and every failure in full.

    :param quiet: only the failures, and the count
    """
    lines: list[str] = []
    ordered = results.ordered()
    for file in dict.fromkeys(result.facts["file"] for result in ordered):
        of_file = [result for result in ordered if result.facts["file"] == file]
        shown = _file_lines(of_file, style, quiet=quiet)
        if shown:
            lines += [style.bold(f"{printable(file)}  {_place(image, of_file)}"), *shown, ""]
    return "\n".join([*lines, _summary(results, style, seconds)])


def _place(image: Path, results: list[Result]) -> str:
    """Image, format and partitions, as ``disk.qcow2 (qcow2, partition 2: ext4)``."""
    places = {}
    for facts in (result.facts for result in results if result.facts["format"]):
        place = f"partition {facts['partition']}: " if facts["partition"] is not None else ""
        places[f"{place}{facts['fstype']}"] = facts["format"]
    inner = f" ({', '.join([*dict.fromkeys(places.values()), *places])})" if places else ""
    return f"{printable(image.name)}{inner}"


def _file_lines(results: list[Result], style: Style, *, quiet: bool) -> list[str]:
    lines: list[str] = []
    for section in dict.fromkeys(result.facts["section"] for result in results):
        of_section = [result for result in results if result.facts["section"] == section]
        passed = sum(result.outcome == "passed" for result in of_section)
        if passed and not quiet:
            count = "" if of_section[0].facts["subject"] == "" else f" ({passed} of {len(of_section)})"
            lines.append(f"  {style.yes} {section}{style.dim(count)}")
        for result in of_section:
            if result.outcome != "passed":
                mark = style.no if result.outcome == "failed" else style.dim("-" * style.mark_width)
                lines.append(f"  {mark} {style.bold(printable(result.facts['check']))}")
                lines += [f"    {line}" for line in result.text.split("\n")[1 if result.facts["told"] else 0 :]]
    return lines


def _summary(results: Results, style: Style, seconds: float) -> str:
    counts = results.counts()
    total = sum(counts.values())
    text = f"{total} check{'' if total == 1 else 's'}: " + ", ".join(
        f"{counts[outcome]} {outcome}" for outcome in _RANK if counts[outcome]
    )
    painted = style.bad(text) if counts["failed"] else style.good(text)
    return f"{painted}{style.dim(f' in {seconds:.1f} s')}"


def _text(report: pytest.TestReport) -> str:
    """What the report says; its ``longreprtext`` would begin with the name of the worker."""
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
