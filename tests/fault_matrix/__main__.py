"""``./tests/faults``: run the fault matrix, print its table, and write it into docs/teardown.md."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from concurrent.futures import as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pytest_imagemount.lab import run_in_lab

from . import table
from .cells import BACKENDS, Cell, cells
from .driver import Result
from .matrix import Matrix, default_lanes, missing_for

_ROOT = Path(__file__).parents[2]
_DOCUMENT = _ROOT / "docs/teardown.md"
_LAB_TIMEOUT = 3600.0


def main() -> int:
    """Exit status 0 when every cell that ran is green."""
    options = _options()
    wanted = [cell for cell in cells(short=options.short) if re.search(options.only, str(cell))]
    results: dict[str, Result] = {}
    kernels: dict[str, str] = {}
    for file in options.add:
        kernels |= _take_over(file, results)
    for backend in options.backend:
        of_backend = [cell for cell in wanted if cell.backend == backend and str(cell) not in results]
        if not of_backend:
            continue
        if reason := missing_for(backend):
            if backend == "nbd" and options.lab and of_backend:
                kernels[backend] = _run_in_lab(options, results)
            else:
                print(f"{len(of_backend)} cells of {backend} cannot run here: {reason}")
            continue
        kernels[backend] = os.uname().release
        _run(of_backend, options.lanes, results)
    if options.json:
        options.json.write_text(json.dumps({"kernels": kernels, "cells": list(map(asdict, results.values()))}))
    else:
        print("\n" + table.render(results, kernels))
    red = [result for result in results.values() if not result.green]
    if options.write:
        if red or len(results) < len(cells()):
            print("docs/teardown.md is not written: that takes every cell, and every one green", file=sys.stderr)
            return 1
        table.write(_DOCUMENT, table.render(results, kernels))
    return 1 if red else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./tests/faults", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--lab", action="store_true", help="run the cells with NBD in the lab, where this machine has none"
    )
    parser.add_argument("--short", action="store_true", help="only the cells that run with all other tests")
    parser.add_argument("--only", default="", metavar="REGEX", help="only cells whose name has a match, as sigterm.*n2")
    parser.add_argument("--backend", action="append", choices=BACKENDS, help="only this one; repeatable")
    parser.add_argument("--lanes", type=int, default=default_lanes(), help="how many at once (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to FILE instead of the table")
    parser.add_argument("--write", action="store_true", help="write the table into docs/teardown.md")
    parser.add_argument(
        "--add",
        type=Path,
        metavar="FILE",
        action="append",
        default=[],
        help="take the cells that --json wrote to FILE as they are, and do not run them again; repeatable",
    )
    options = parser.parse_args()
    options.backend = options.backend or list(BACKENDS)
    return options


def _run(wanted: list[Cell], lanes: int, results: dict[str, Result]) -> None:
    by_name = {str(cell): cell for cell in wanted}
    with Matrix(wanted, lanes) as matrix:
        for count, future in enumerate(as_completed(matrix.futures.values()), 1):
            result = future.result()
            results[result.cell] = result
            state = f"{result.seconds:4.1f} s" if result.green else "RED   "
            print(f"[{count:3}/{len(wanted)}] {state}  {table.name_of(by_name[result.cell])}", flush=True)
            if not result.green:
                print(f"{result}\n{result.output}", flush=True)


def _run_in_lab(options: argparse.Namespace, results: dict[str, Result]) -> str:
    """The cells with NBD in a kernel that has it; returns that kernel's release."""
    with tempfile.TemporaryDirectory(prefix="faults-lab-") as folder:
        file = Path(folder) / "results.json"
        only = [f"--only={options.only}", *(["--short"] if options.short else [])]
        command = [sys.executable, "-m", "tests.fault_matrix", "--backend=nbd", f"--json={file}", *only]
        status = run_in_lab(command, cwd=_ROOT, timeout=_LAB_TIMEOUT, read_write=[Path(folder)])
        if not file.exists():
            raise SystemExit(f"the run in the lab ended with status {status}")
        found = json.loads(file.read_text())
    _take_in(found, results)
    return str(found["kernels"]["nbd"])


def _take_over(file: Path, results: dict[str, Result]) -> dict[str, str]:
    """The cells of an earlier run; returns backend → kernel of it."""
    found = json.loads(file.read_text())
    _take_in(found, results)
    return dict(found["kernels"])


def _take_in(found: dict[str, Any], results: dict[str, Result]) -> None:
    for cell in found["cells"]:
        result = Result(**{**cell, "left": tuple(cell["left"])})
        results[result.cell] = result


if __name__ == "__main__":
    sys.exit(main())
