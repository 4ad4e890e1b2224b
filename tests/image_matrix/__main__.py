"""``./tests/images``: run the image matrix, print its tables, and write them into docs/images.md."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from pytest_imagemount.lab import run_in_lab

from . import table
from .recording import Result

_ROOT = Path(__file__).parents[2]
_DOCUMENT = _ROOT / "docs/images.md"
_TEST = "tests/system/test_images.py"
_LAB_TIMEOUT = 1800.0


def main() -> int:
    """Exit status 0 when no cell that ran has failed."""
    options = _options()
    places = [_run("here", options.only), *([_run("lab", options.only)] if options.lab else [])]
    text = table.render(places)
    print("\n" + text)
    if options.write:
        if not table.is_complete(places):
            print("docs/images.md is not written: that takes every cell, and every one green", file=sys.stderr)
            return 1
        table.write(_DOCUMENT, text)
    return int(any(result.outcome == "failed" for place in places for result in place.results.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./tests/images", description=__doc__, allow_abbrev=False)
    parser.add_argument("--lab", action="store_true", help="run in the lab what only some kernels are able to do")
    parser.add_argument("--only", default="", metavar="REGEX", help="only cells whose name has a match, as qcow2.*rw")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/images.md")
    return parser.parse_args()


def _run(name: str, only: str) -> table.Place:
    """Run the cells with pytest, in the lab where that is the name."""
    with tempfile.TemporaryDirectory(prefix="images-") as folder:
        file = Path(folder) / "results.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.image_matrix.recording"]
        command += [f"--cell-results={file}", f"--only-cells={only}", _TEST]
        if name == "lab":
            status = run_in_lab(command, cwd=_ROOT, timeout=_LAB_TIMEOUT, read_write=[Path(folder)])
        else:
            status = subprocess.run(command, cwd=_ROOT, check=False).returncode
        if not file.exists():
            raise SystemExit(f"the run of the cells ended with status {status}")
        found = json.loads(file.read_text())
    results = {cell: Result(**result) for cell, result in found["results"].items()}
    return table.Place(name, found["kernel"], tuple(found["lacks"]), results)


if __name__ == "__main__":
    sys.exit(main())
