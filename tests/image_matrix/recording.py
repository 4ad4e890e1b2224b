"""A pytest plugin that writes down what came of each cell: ``-p tests.image_matrix.recording --cell-results=FILE``."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

_MAY_LACK = ("nbd", "fuse", "device-mapper", "md", "xfs", "btrfs", "vfat", "squashfs", "erofs", "iso9660")


@dataclass(frozen=True)
class Result:
    """What came of a cell in one place.

    :param outcome: ``passed``, ``failed`` or ``skipped``
    :param seconds: with the building of its image
    :param backend: that served; empty where it did not pass
    """

    cell: str
    outcome: str
    seconds: float
    backend: str = ""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare where to write, and which cells to run."""
    group = parser.getgroup("image matrix")
    group.addoption("--cell-results", type=Path, required=True, help="write the results to this file, as JSON")
    group.addoption("--only-cells", type=re.compile, default="", help="run only the cells whose name has a match")


def pytest_configure(config: pytest.Config) -> None:
    """Begin to record."""
    config.pluginmanager.register(Recorder(config.getoption("cell_results"), config.getoption("only_cells")))


class Recorder:
    """Keeps the results of one run, and writes them to ``file`` at its end."""

    def __init__(self, file: Path, only: re.Pattern[str] | str) -> None:
        self._file = file
        self._only = re.compile(only)
        self._results: dict[str, Result] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out what is not asked for."""
        out = [item for item in items if not self._only.search(cell_of(item.nodeid))]
        if out:
            config.hook.pytest_deselected(items=out)
            items[:] = [item for item in items if item not in out]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the worst that a cell's set-up, run and teardown come to."""
        cell = cell_of(report.nodeid)
        known = self._results.get(cell)
        seconds = report.duration + (known.seconds if known else 0)
        outcome = report.outcome if report.failed or known is None or known.outcome == "passed" else known.outcome
        backend = str(dict(report.user_properties).get("backend", ""))
        self._results[cell] = Result(cell, outcome, seconds, backend)

    def pytest_sessionfinish(self) -> None:
        """Write them, with the kernel's version and what it lacks."""
        from pytest_imagemount.capabilities import missing

        version = re.match(r"[0-9]+\.[0-9]+", os.uname().release)
        assert version
        results = {cell: asdict(result) for cell, result in self._results.items()}
        lacks = list(filter(missing, _MAY_LACK))
        self._file.write_text(json.dumps({"kernel": version[0], "lacks": lacks, "results": results}))


def cell_of(nodeid: str) -> str:
    """The name of the cell of that test."""
    return nodeid.partition("[")[2].removesuffix("]")
