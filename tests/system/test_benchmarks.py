"""``./benchmarks/run`` runs: a smoke run of everything that it measures, and its harness."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import budgets, in_lab, pictures, report
from benchmarks.__main__ import SECTIONS
from benchmarks.bench import ROOT
from benchmarks.rounds import Case, Outcome, difference, interleave, ratio
from benchmarks.sections import cycles
from benchmarks.sections.section import Results

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@pytest.mark.timeout(900)
@pytest.mark.needs("root", "loop", "fuse", "ext4", "mke2fs", "qemu-img", "lab")
def test_a_quick_run_measures_every_section_here_and_in_the_lab(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--output", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "IMAGEMOUNT_BACKEND": "nbd", "PYTEST_ADDOPTS": "--no-such-option"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    document = (tmp_path / "benchmarks.md").read_text()
    assert run.stdout.strip() in document
    assert "failed" not in run.stdout
    assert "The lab's part is missing" not in run.stdout
    for section in SECTIONS:
        assert f"### {section.title}" in run.stdout
    lines = run.stdout.splitlines()
    for cycle in (cycles.FLOOR, cycles.FIXTURE_RAW, cycles.FIXTURE_FUSE):
        assert _median("this machine", cycle, lines) > 0
    for cycle in (cycles.FLOOR, cycles.FIXTURE_RAW, cycles.FIXTURE_FUSE, cycles.FIXTURE_NBD, cycles.QEMU_NBD):
        assert _median("lab", cycle, lines) > 0
    assert "not measured" not in run.stdout  # in the table of budgets


def _median(kernel: str, case: str, lines: list[str]) -> float:
    """Milliseconds, from the table of cycles."""
    image, _, cycle = case.partition(": ")
    rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    (row,) = [row for row in rows if row[:3] == [kernel, image, cycle]]
    return float(row[3].removesuffix(" ms"))


def test_every_round_runs_each_case_once_and_slow_ones_are_spread() -> None:
    ran: list[str] = []

    def case(name: str, rounds: int | None = None) -> Case:
        def run() -> Mapping[str, float]:
            ran.append(name)
            return {"seconds": 1.0}

        return Case(name, run, rounds=rounds, warm_ups=0)

    outcomes = interleave([case("a"), case("b"), case("slow", 2)], 10)
    assert [ran.count(name) for name in ("a", "b", "slow")] == [10, 10, 2]
    assert sorted(outcomes["slow"].samples["seconds"]) == [4, 9]
    without = [name for name in ran if name != "slow"]
    rounds = [without[start : start + 2] for start in range(0, 20, 2)]
    assert all(sorted(names) == ["a", "b"] for names in rounds)
    assert ["a", "b"] in rounds
    assert ["b", "a"] in rounds


def test_a_case_that_fails_says_why_and_the_others_go_on() -> None:
    def fail() -> Mapping[str, float]:
        raise OSError("no such thing")

    def work() -> Mapping[str, float]:
        return {"seconds": 2.0}

    outcomes = interleave([Case("ours", fail), Case("peer", fail, peer=True), Case("good", work)], 3)
    assert (outcomes["ours"].missing, outcomes["ours"].broken) == ("failed: no such thing", True)
    assert (outcomes["peer"].missing, outcomes["peer"].broken) == ("failed: no such thing", False)
    assert outcomes["good"].values() == [2.0, 2.0, 2.0]


def test_a_ratio_compares_within_the_rounds() -> None:
    # The machine gets ten times slower after the second round; the ratio is 3 all the time.
    one = Outcome({"seconds": {0: 3.0, 1: 3.0, 2: 30.0}})
    other = Outcome({"seconds": {0: 1.0, 1: 1.0, 2: 10.0, 3: 10.0, 4: 10.0}})
    assert ratio(one, other) == 3.0
    assert difference(one, other) == 2.0
    assert ratio(one, Outcome()) is None


def test_outcomes_survive_the_way_out_of_the_lab(tmp_path: Path) -> None:
    found = {"cycles": {"a": Outcome({"seconds": {0: 0.5}}), "b": Outcome(missing="failed: x", broken=True)}}
    in_lab.write(tmp_path / "results.json", found)
    assert in_lab.read(tmp_path / "results.json") == found


def test_a_budget_is_met_up_to_its_bound_and_not_beyond() -> None:
    def verdicts(raw: float) -> str:
        here = {cycles.FLOOR: _took(1.0), cycles.FIXTURE_RAW: _took(raw), cycles.FIXTURE_FUSE: _took(raw * 7)}
        return "\n".join(budgets.table({"cycles": Results(here)}))

    met = verdicts(2.0).splitlines()
    assert "met (1.00 of it)" in met[2]
    assert "not met" not in met[2]
    assert "**not met** (1.17 times it)" in met[3]
    assert "not measured" in met[4]  # the lab's
    assert "**not met** (1.05 times it)" in verdicts(2.1).splitlines()[2]


def _took(seconds: float) -> Outcome:
    return Outcome({"seconds": {0: seconds}})


def test_a_report_replaces_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(f"# Title\n\ntext\n\n{report.BEGIN}\nold\n{report.END}\n\nmore\n")
    report.update(document, "new")
    assert document.read_text() == f"# Title\n\ntext\n\n{report.BEGIN}\n\nnew\n{report.END}\n\nmore\n"
    document.write_text("no place for it")
    with pytest.raises(ValueError, match="lacks the lines"):
        report.update(document, "new")


def test_the_page_in_the_documentation_has_a_place_for_the_report() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text()
    assert text.index(report.BEGIN) < text.index(report.END)


def test_pictures_of_equal_numbers_are_equal_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the pictures need the dependency group bench")
    results = Results({cycles.FLOOR: _took(0.001), cycles.FIXTURE_RAW: _took(0.002)})
    contents = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        assert pictures.draw([cycles.SECTION], {"cycles": results}, folder) == ["cycles"]
        contents.append((folder / report.picture_name("cycles")).read_text())
    assert contents[0] == contents[1]
    assert "raw: mounted_image" in contents[0]
