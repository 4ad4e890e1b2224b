"""The command ``imagemount``. Each subcommand lives in a module of its own, imported when it is called."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from .errors import ImageMountError

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMANDS = {
    "doctor": ("pytest_imagemount.doctor", "what this machine can do, what is missing, and how to get it"),
    "inspect": ("pytest_imagemount.inspection", "format, size, partition table and file systems of a disk image"),
    "check": ("pytest_imagemount.checks.command", "check what is in a disk image, by files with no Python in them"),
    "ps": ("pytest_imagemount.processes", "which images are mounted, for which process and test, and since when"),
    "clean": ("pytest_imagemount.cleaning", "take down what killed runs left mounted or attached"),
    "lab": ("pytest_imagemount.lab.command", "run a command under a Linux kernel of its own, with NBD, without root"),
}

_PASS_ON = ("check",)
"""The commands that take files anywhere, and find what follows ``--`` in ``args.passed_on``."""

_DESCRIPTIONS = {
    "doctor": """\
Show what this machine can do with disk images, what it lacks, what for, and how to get it.
Exit status: 0 when raw images can be mounted by loop and qcow2 images by NBD or FUSE, and what is in
them read; 1 when not; 2 when the command itself failed.
""",
    "inspect": """\
Show what is in a disk image: its format, found from the content and never from the file name, its
virtual size, its partition table, and the type, label and UUID of each file system. Needs no
privilege, mounts nothing and changes nothing; --os mounts the root, read-only, to tell the system in
it. An image that refers to another file (a backing file, an external data file) is refused, naming
that file, unless --backing names the folder that it is in. Exit status: 0; 1 when --os found no
system; 2 when the image is refused.
""",
    "check": """\
Check a disk image against check files (*.imagecheck.yaml): files, packages, users, services, fstab,
partitions, and rules such as no-secrets. The checks are tests: `pytest --image IMAGE FILE` runs the
same ones. What follows `--` are options of pytest: `-- --junitxml=out.xml`, `-- -n 4`. With --init,
a first check file is written from what the image holds, to FILE or to the terminal. What may be in a
check file: docs/checks.md. Exit status: 0 when all checks passed, 1 when one failed, 2 when they
could not be run.
""",
    "ps": """\
List the images that tests have mounted or attached: the process and the worker, the test, the image,
the device, the mount point, and since when. State: live; kept (by --imagemount-keep, after the end of
its run); dead (its helper was killed: `imagemount clean`, or the next run, takes it down). Root sees
those of every user, others their own. Changes nothing.
""",
    "clean": """\
Take down what killed runs left: unmount, detach loop devices, disconnect NBD devices, end storage
daemons, remove their folders. Nothing is touched whose helper lives, or that is not, by its own mark
in the kernel, what the dead helper made. The next run's first mount does the same by itself. Root
cleans up for every user; another user for himself, by a helper that `sudo -n` starts. Exit status: 0
when nothing is left, 1 when something could not be taken down, 2 when the command itself failed.
""",
}

_EPILOG = """\
examples:
  imagemount doctor                    see what works here
  imagemount doctor --install          install what is missing (Debian, Ubuntu)
  imagemount inspect disk.qcow2        see what is in an image
  imagemount inspect disk.raw --json   the same, for a program
  imagemount check --init disk.qcow2   write a first file of checks
  imagemount check disk.qcow2 base.imagecheck.yaml
  imagemount ps                        see what is mounted, and by whom
  imagemount clean --dry-run           see what killed runs left; without --dry-run, take it down
  imagemount lab -- pytest -n 2        run tests under a kernel that has NBD

Tests mount images by the fixture mounted_image; `pytest --fixtures` and `pytest --help` tell about
it and about the options --imagemount-*.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``imagemount`` with ``argv`` and return its exit status: 2 for an error, 130 for Ctrl-C."""
    _open_closed_streams()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        arguments, passed_on = _split(arguments)
        args = _parse(arguments)
        args.passed_on = passed_on
        status: int = importlib.import_module(_COMMANDS[args.subcommand][0]).run(args)
        sys.stdout.flush()
    except ImageMountError as error:
        print(f"imagemount: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, say) has gone.
        _end_output()
        return 141
    except OSError as error:  # the disk that the output goes to is full, say
        _end_output()
        print(f"imagemount: error: {error}", file=sys.stderr)
        return 2
    return status


def _open_closed_streams() -> None:
    """Give a program that was started with closed streams (``>&-``) others that lead nowhere.

    Else the next files that it opens would be the standard streams of the programs that it starts.
    """
    if None not in (sys.stdin, sys.stdout, sys.stderr):
        return
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _end_output() -> None:
    """What stdout does not take must not raise again when the interpreter ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """``arguments``, and of a command that starts another program's, what follows ``--``: argparse would mix them."""
    if "--" not in arguments or arguments[0] not in _PASS_ON:
        return arguments, []
    at = arguments.index("--")
    return arguments[:at], arguments[at + 1 :]


def _parse(arguments: list[str]) -> argparse.Namespace:
    """As argparse, which gives a list of files that comes after an option to nobody: it is in ``args.more``."""
    parser = _parser(arguments)
    args, more = parser.parse_known_args(arguments)
    if more and (args.subcommand not in _PASS_ON or any(word.startswith("-") for word in more)):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    args.more = more
    return args


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; only the subcommand that ``arguments`` name is imported, to declare its options."""
    parser = argparse.ArgumentParser(
        prog="imagemount",
        description="Disk images in tests: check the machine, look into images, clean up, run under a kernel with NBD.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="subcommand", metavar="COMMAND", required=True, title="commands")
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (module, summary) in _COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=_DESCRIPTIONS.get(name, summary),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == called:
            importlib.import_module(module).add_arguments(command)
    return parser


class _Version(argparse.Action):
    """Print the version. Looking it up reads the metadata of the installed package: not for every call."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"imagemount {version('pytest-imagemount')}")
        except PackageNotFoundError:
            print("imagemount (not installed as a package)")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
