"""``imagemount lab``: the command line of :func:`pytest_imagemount.lab.run_in_lab`."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ..errors import ImageMountError
from . import FAILED, MODULES, run_in_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class _Signalled(BaseException):
    """A signal asks this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``imagemount lab``."""
    parser.add_argument("--memory", default="2G", metavar="SIZE", help="memory of the lab (default %(default)s)")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="kill the lab and exit 124 after this time")
    parser.add_argument(
        "--rw",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="a folder besides the current one that the command may write to; repeatable",
    )
    parser.add_argument(
        "--ro",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="a folder under /tmp, /run, /var/tmp or /dev/shm, which are empty in the lab, to show there; repeatable",
    )
    parser.add_argument("--nbds", type=int, default=16, metavar="N", help="number of NBD devices (default %(default)s)")
    parser.add_argument(
        "--module", action="append", default=[], metavar="NAME", help="one more kernel module to load; repeatable"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND …", help="what to run")


def run(args: argparse.Namespace) -> int:
    """Run what ``args`` says; the exit status of ``imagemount lab``.

    The command's own; 128 + N if signal N ended the command or this process; 124 when the time was up; 125 when the
    lab itself failed, with the reason on stderr.
    """
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    try:
        with _signals_raise():
            return run_in_lab(
                command,
                memory=args.memory,
                timeout=args.timeout,
                read_write=args.rw,
                read_only=args.ro,
                nbds_max=args.nbds,
                modules=(*MODULES, *args.module),
            )
    except ImageMountError as error:
        print(f"imagemount lab: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except _Signalled as error:
        return 128 + error.number


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Inside, the signals that ask this process to end raise, so that everything is undone first."""

    def end(number: int, _frame: object) -> NoReturn:
        for other in _ENDING_SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise _Signalled(number)

    before = [signal.signal(number, end) for number in _ENDING_SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(_ENDING_SIGNALS, before, strict=True):
            signal.signal(number, handler)
