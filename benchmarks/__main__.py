"""``./benchmarks/run``: measure, print the tables, and put them and the pictures into docs/."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_imagemount.errors import CapabilityMissing, LabFailed

from . import in_lab, peers, pictures, report
from .bench import ROOT, Bench, say
from .fixture import inside_a_test
from .sections import cycles, first_mount, held, pool, session, sizes, throughput, unused, workers
from .sections.section import Results, Section

if TYPE_CHECKING:
    from pytest_imagemount.errors import ImageMountError
    from pytest_imagemount.plugin import MountFactory

    from .rounds import Outcomes

SECTIONS = tuple(
    module.SECTION for module in (cycles, first_mount, workers, session, pool, sizes, held, throughput, unused)
)


def main() -> int:
    """Run ``./benchmarks/run``; the exit status is 1 where a case of this plugin's own, or the lab, failed."""
    args = _arguments()
    # What the caller's own runs are set to must not change what is measured.
    for name in [name for name in os.environ if name.startswith(("PYTEST_", "IMAGEMOUNT_"))]:
        del os.environ[name]
    # An installed package has its bytecode; without it every import would be measured with a compilation.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if args.install:
        return subprocess.run([ROOT / "tools/install-packages", *peers.packages()], check=False).returncode
    if os.geteuid() != 0:
        print("the system calls alone need root: run ./benchmarks/run, which takes sudo -n", file=sys.stderr)
        return 2
    sections = [section for section in SECTIONS if not args.sections or section.key in args.sections]
    if args.in_lab:
        in_lab.write(args.in_lab, _measure(sections, quick=args.quick))
        return 0
    return _run(sections, quick=args.quick, output=args.output)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./benchmarks/run", description=__doc__)
    parser.add_argument("sections", nargs="*", help=f"of {', '.join(section.key for section in SECTIONS)}; default all")
    parser.add_argument("--quick", action="store_true", help="one round of little work: a smoke run, not a measurement")
    parser.add_argument(
        "--install", action="store_true", help="install the programs to compare with, and do nothing else"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="where benchmarks.md and the pictures go; default docs/ for a whole run, and nowhere for any other",
    )
    parser.add_argument("--in-lab", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.sections) - {section.key for section in SECTIONS}:
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    return args


def _run(sections: list[Section], *, quick: bool, output: Path | None) -> int:
    whole = len(sections) == len(SECTIONS) and not quick
    folder = output or (ROOT / "docs" if whole else None)
    machine = report.describe_machine()
    here = _measure(sections, quick=quick)
    twice = [section for section in sections if section.in_lab]
    lab: dict[str, Outcomes] = {}
    lab_missing: ImageMountError | None = None
    try:
        lab = _measure_in_lab(twice, quick=quick)
    except (CapabilityMissing, LabFailed) as error:
        lab_missing = error
    found = {key: Results(outcomes, lab.get(key)) for key, outcomes in here.items()}
    drawn: list[str] = []
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            drawn = pictures.draw(sections, found, folder)
        except ImportError as error:
            say(f"no pictures: {error} (pip install matplotlib)")
    text = report.render(sections, found, machine=machine, lab_missing=str(lab_missing or ""), pictures=drawn)
    if folder is not None:
        report.update(folder / "benchmarks.md", text)
    print(text)
    return _status(found) or int(isinstance(lab_missing, LabFailed))


def _measure_in_lab(sections: list[Section], *, quick: bool) -> dict[str, Outcomes]:
    if not sections:
        return {}
    say("in the lab …")
    with tempfile.TemporaryDirectory(prefix="imagemount-benchmarks-") as folder:
        return in_lab.measure(sections, Path(folder), quick=quick)


def _measure(sections: list[Section], *, quick: bool) -> dict[str, Outcomes]:
    found: dict[str, Outcomes] = {}
    for section in sections:
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="imagemount-benchmarks-") as folder:
            place = Path(folder)

            def measure(mount: MountFactory, section: Section = section, place: Path = place) -> None:
                found[section.key] = section.measure(Bench(mount, place, quick))

            inside_a_test(measure)
        say(f"{section.title}: {time.monotonic() - start:.0f} s")
    return found


def _status(found: dict[str, Results]) -> int:
    broken = [
        f"{section}, {case}: {outcome.missing}"
        for section, results in found.items()
        for outcomes in (results.here, results.lab or {})
        for case, outcome in outcomes.items()
        if outcome.broken
    ]
    for line in broken:
        say(line)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
