"""``imagemount doctor``: what this machine can do, what it lacks, and the command that gets it."""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .capabilities import TABLE, Capabilities, absent_packages, remedy
from .terminal import Style

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

APT_INSTALL = ("apt-get", "install", "--yes", "--no-install-recommends")
_WIDTH = 100
_NEEDED = ("libblkid", "openat2")  # by every mount
_WAYS = {
    None: "cannot be mounted",
    "loop": "mounted by loop",
    "nbd": "mounted by NBD",
    "fuse": "mounted by FUSE + loop",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``imagemount doctor``."""
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    parser.add_argument(
        "--install",
        action="store_true",
        help="first install what is missing, by apt-get (Debian, Ubuntu); a user who is not root needs sudo -n",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print the commands that --install would run")
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Report, after installing what is missing if that was asked for.

    :returns: 0 when the main job works here: raw images by loop, qcow2 by NBD or FUSE; else 1
    :raises ImageMountError: the packages could not be installed
    """
    if args.json and (args.install or args.dry_run):
        args.usage_error("--json goes with neither --install nor --dry-run")
    here = Capabilities()
    if args.install or args.dry_run:
        from .install import install

        installed = install(here, dry_run=args.dry_run)
        if args.dry_run:
            return 0
        here = Capabilities() if installed else here
        print()
    print(json.dumps(to_json(here), indent=2) if args.json else render(here, Style.of(sys.stdout)))
    return 0 if is_ready(here) else 1


def raw_way(here: Capabilities) -> str | None:
    """The backend that mounts raw images here: ``loop``, or None."""
    return "loop" if here["loop"] is None else None


def qcow2_way(here: Capabilities) -> str | None:
    """The backend that mounts qcow2 and all other formats here: ``nbd``, ``fuse``, or None."""
    if here["qemu"] is not None:
        return None
    if here["nbd"] is None:
        return "nbd"
    return "fuse" if here["fuse"] is None and here["loop"] is None else None


def is_ready(here: Capabilities) -> bool:
    """Whether the main job works here."""
    needed = all(here[name] is None for name in _NEEDED)
    return needed and raw_way(here) is not None and qcow2_way(here) is not None


def install_command(here: Capabilities) -> tuple[str, ...]:
    """The command line that installs what is missing, as the user may type it; empty when nothing is."""
    packages = absent_packages(here)
    if not packages:
        return ()
    return (*(() if here.machine.uid == 0 else ("sudo",)), *APT_INSTALL, *packages)


def to_json(here: Capabilities) -> dict[str, Any]:
    """The report as JSON values.

    Keys: ``ready`` (bool), ``raw`` and ``qcow2`` (the backend that serves, or null), ``machine`` (``kernel``,
    ``architecture``, ``uid``), ``capabilities`` (name → ``available``, ``reason`` or null, ``group``, ``gives``,
    ``get``), ``packages`` (missing Debian packages), ``command`` (argv that installs them, or an empty list).
    """
    machine = here.machine
    return {
        "ready": is_ready(here),
        "raw": raw_way(here),
        "qcow2": qcow2_way(here),
        "machine": {"kernel": machine.release, "architecture": machine.architecture, "uid": machine.uid},
        "capabilities": {
            name: {
                "available": here[name] is None,
                "reason": here[name],
                "group": capability.group,
                "gives": capability.gives,
                "get": remedy(here, name),
            }
            for name, capability in TABLE.items()
        },
        "packages": list(absent_packages(here)),
        "command": list(install_command(here)),
    }


def render(here: Capabilities, style: Style) -> str:
    """The report as text."""
    machine = here.machine
    user = "root" if machine.uid == 0 else f"user {machine.uid}"
    lines = [f"Linux {machine.release} on {machine.architecture}, as {user}"]
    for group, members in groupby(TABLE.values(), key=lambda capability: capability.group):
        lines += ["", style.bold(group)]
        for capability in members:
            lines += _row(here, capability.name, style)
    return "\n".join([*lines, "", *_summary(here, style)])


def _row(here: Capabilities, name: str, style: Style) -> Iterator[str]:
    capability, reason = TABLE[name], here[name]
    column = max(map(len, TABLE)) + 2
    yield f"  {style.no if reason else style.yes} {name:<{column}}{capability.gives}"
    if reason:
        indent = " " * (3 + style.mark_width + column)
        for text in (f"missing: {reason}", f"to have it: {remedy(here, name)}"):
            wrapped = textwrap.wrap(text, _WIDTH - len(indent), break_on_hyphens=False, break_long_words=False)
            yield from (indent + style.dim(line) for line in wrapped)


def _summary(here: Capabilities, style: Style) -> Iterator[str]:
    raw, qcow2 = raw_way(here), qcow2_way(here)
    yield style.bold("Images")
    for name, way in (("raw", raw), ("qcow2 and all other", qcow2)):
        yield f"  {style.yes if way else style.no} {name:<21}{_WAYS[way]}"
    yield ""
    command = install_command(here)
    if not command:
        yield "Every package is installed."
        return
    yield f"Missing packages: {' '.join(absent_packages(here))}. Install them by `imagemount doctor --install`, or by:"
    yield f"  {shlex.join(command)}"
