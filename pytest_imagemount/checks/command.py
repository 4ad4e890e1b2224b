"""``imagemount check``: check files against an image, by pytest, with no pytest to know."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import Settings
from ..errors import RequestInvalid
from ..image_files import find_image
from ..image_option import AUTO, CHECK_FILES, PARTITIONS
from ..terminal import Style

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from .results import Results

_HIDDEN = (
    "-qq",
    "--no-header",
    "--no-summary",
    "--show-capture=no",
    "-oconsole_output_style=classic",
    "--noconftest",
    "-pno:cacheprovider",
    "-pimagemount",
    "-pxdist",
)
"""pytest shows nothing of its own, runs no Python of the folder that it is in, and writes nothing there. The plugins
are named for where the environment forbids pytest to look for any (``PYTEST_DISABLE_PLUGIN_AUTOLOAD``)."""

_NO_WARNING = "-Wignore::pytest.PytestAssertRewriteWarning"
"""Of what this command itself has imported. The last of the options: ``-W error`` before it changes nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``imagemount check``."""
    parser.usage = (
        "imagemount check [options] IMAGE FILE... [-- PYTEST OPTION...]\n       imagemount check --init IMAGE [FILE]"
    )
    parser.add_argument("image", metavar="IMAGE", help="an image file, or a block device")
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="check files (*.imagecheck.yaml), or folders with such files"
    )
    parser.add_argument(
        "--partition", default=AUTO, metavar="WHICH", help=f"the partition, where a check file says none: {PARTITIONS}"
    )
    parser.add_argument("--format", help="the format that the image must have (default: told from the content)")
    parser.add_argument("-k", metavar="WORDS", dest="words", help="only checks with these words in their names")
    parser.add_argument("-q", "--quiet", action="store_true", help="print only what failed, and the count")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--init", action="store_true", help="write a first check file from what the image holds")


def run(args: argparse.Namespace) -> int:
    """Run the checks; 0 when all passed, 1 when one failed, 2 when they could not be run.

    :raises ImageMountError: the image or a check file is not there, or ``--init`` cannot read the image
    """
    files = [*args.files, *args.more]
    if args.init:
        from .first_file import write_first_file

        return write_first_file(args.image, files, partition=args.partition, format=args.format)
    return _check(find_image(args.image, Settings.from_environment().command_folders), _check_files(files), args)


def _check_files(given: Sequence[str]) -> list[Path]:
    """The check files that ``given`` names; those below a folder in the order of their names.

    :raises RequestInvalid: there is none, or a file is not there or not named as check files are
    """
    if not given:
        reason = "give check files, or --init to write a first one"
        raise RequestInvalid(argument="FILE", value="nothing", reason=reason)
    found: list[Path] = []
    for name in given:
        path = Path(name)
        below = sorted(each for each in path.rglob("*") if each.name.endswith(CHECK_FILES)) if path.is_dir() else [path]
        if not below:
            raise RequestInvalid(
                argument="FILE", value=name, reason=f"there is no file *{CHECK_FILES[0]} in this folder"
            )
        if not below[0].is_file():
            raise RequestInvalid(argument="FILE", value=name, reason="there is no such file")
        if not below[0].name.endswith(CHECK_FILES):
            reason = f"the name of a check file ends in {CHECK_FILES[0]}, so that pytest finds it too: rename it"
            raise RequestInvalid(argument="FILE", value=name, reason=reason)
        found += below
    return list(dict.fromkeys(found))


def _check(image: Path, files: Sequence[Path], args: argparse.Namespace) -> int:
    import pytest

    from .results import Results, render

    # No ini file: what a project has set for its own tests is not for these. /dev/null is one without settings.
    argv = [*_HIDDEN, f"-c{os.devnull}", f"--rootdir={Path.cwd()}", f"--confcutdir={Path.cwd()}"]
    argv += [f"--image={image}", f"--image-partition={args.partition}"]
    argv += [f"--image-format={args.format}"] if args.format else []
    argv += ["-k", args.words] if args.words else []
    results = Results()
    start = time.perf_counter()
    said = io.StringIO()  # what plugins of the user's print, and the empty line with which pytest ends
    with contextlib.redirect_stdout(said):
        status = pytest.main([*argv, *args.passed_on, _NO_WARNING, *map(str, files)], plugins=[results])
    seconds = time.perf_counter() - start
    if not results.mistakes and (text := said.getvalue().strip("\n")):
        print(text, file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(results.to_json(image), indent=2))
    elif results.by_node:
        print(render(results, image, Style.of(sys.stdout), quiet=args.quiet, seconds=seconds))
    return _status(results, status)


def _status(results: Results, status: int) -> int:
    """The exit status of the command from that of pytest."""
    import pytest

    for mistake in results.mistakes:
        print(mistake, file=sys.stderr)
    if status == pytest.ExitCode.INTERRUPTED and not results.mistakes:
        raise KeyboardInterrupt
    if status == pytest.ExitCode.NO_TESTS_COLLECTED:
        print("imagemount check: no check was selected", file=sys.stderr)
    return status if status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) else 2
