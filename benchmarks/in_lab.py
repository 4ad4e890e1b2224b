"""The part of the run that wants NBD and the device mapper: the same sections, in the lab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from pytest_imagemount.capabilities import require
from pytest_imagemount.errors import LabFailed

from .bench import ROOT
from .rounds import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .rounds import Outcomes
    from .sections.section import Section

_TIMEOUT = 1800


def measure(sections: Sequence[Section], folder: Path, *, quick: bool) -> dict[str, Outcomes]:
    """What the sections gave in the lab, by their keys.

    :raises CapabilityMissing: there is no lab on this machine
    :raises LabFailed: the run in the lab failed; what it said is on stderr
    """
    require("lab")
    results = folder / "lab"
    results.mkdir()
    file = results / "results.json"
    lab = [sys.executable, "-m", "pytest_imagemount.cli", "lab", "--timeout", str(_TIMEOUT), "--rw", str(results), "--"]
    command = [sys.executable, "-m", "benchmarks", "--in-lab", str(file), *(["--quick"] if quick else [])]
    command += [section.key for section in sections]
    # What the lab says goes where progress goes.
    done = subprocess.run([*lab, *command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno(), check=False)
    if done.returncode:
        hint = "what it said is above the tables"
        raise LabFailed(reason=f"the run in it ended with status {done.returncode}", hint=hint)
    return read(file)


def write(file: Path, found: Mapping[str, Outcomes]) -> None:
    """Hand the outcomes out of the lab."""
    values = {key: {name: outcome.to_json() for name, outcome in outcomes.items()} for key, outcomes in found.items()}
    file.write_text(json.dumps(values))
    os.sync()


def read(file: Path) -> dict[str, Outcomes]:
    """What :func:`write` wrote."""
    values = json.loads(file.read_text())
    return {
        key: {name: Outcome.from_json(value) for name, value in outcomes.items()} for key, outcomes in values.items()
    }
