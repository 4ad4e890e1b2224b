"""The commands of images that run now, each in a process of its own (:mod:`.run_inside`).

The helper starts them and does not wait for them: the test process has the pipes. It ends them before it unmounts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..engine.undo import patience
from ..errors import RequestInvalid
from ..programs import environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .protocol import Run

_PIPES = 5
_END_TIMEOUT = 1.0
_LARGEST_ID = (1 << 29) - 1
_BOOT = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from pytest_imagemount.helper.run_inside import main; sys.exit(main(sys.argv[1:]))"
)


class Place(NamedTuple):
    """A mount that a command sees.

    :param mount: its number
    :param path: where in the command's tree, as ``boot/efi``; ``.`` for the root, which comes first
    :param root: a descriptor of the folder where the helper has mounted it
    """

    mount: int
    path: str
    root: int


class Runs:
    """What runs, and in which mounts."""

    def __init__(self) -> None:
        self._running: dict[subprocess.Popen[bytes], frozenset[int]] = {}

    def start(self, request: Run, places: Sequence[Place], pipes: Sequence[int]) -> None:
        """Start a command in the tree that ``places`` make.

        :param pipes: stdin, stdout, stderr, the pipe for what happens, and the one whose end ends it
        :raises RequestInvalid: the request makes no sense
        """
        self._forget_ended()
        job = _job(request, pipes, [place.path for place in places])
        file = os.memfd_create("job", os.MFD_CLOEXEC)
        try:
            os.write(file, json.dumps(job).encode())
            os.lseek(file, 0, os.SEEK_SET)
            descriptors = (file, *pipes, *(place.root for place in places))
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _BOOT, str(Path(__file__).parents[2]), *map(str, descriptors)],
                stdin=subprocess.PIPE,
                pass_fds=descriptors,
                env=environment(),
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(file)
        self._running[process] = frozenset(place.mount for place in places)

    def end(self, mount: int | None = None) -> None:
        """End what runs in mount number ``mount``, or in all; nothing of it is left when this returns."""
        ending = [process for process, used in self._running.items() if mount is None or mount in used]
        for process in ending:
            assert process.stdin is not None
            process.stdin.close()
        for process in ending:
            try:
                process.wait(patience(_END_TIMEOUT))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            del self._running[process]

    def _forget_ended(self) -> None:
        for process in [process for process in self._running if process.poll() is not None]:
            assert process.stdin is not None
            process.stdin.close()
            del self._running[process]


def _job(request: Run, pipes: Sequence[int], places: Sequence[str]) -> dict[str, object]:
    """The fields of :class:`.run_inside.Job`, which is not imported: the helper has no use for the rest of it."""
    if not request.argv or len(pipes) != _PIPES:
        value = f"{list(request.argv)} with {len(pipes)} descriptors"
        raise RequestInvalid(argument="argv", value=value, reason=f"a command, and {_PIPES} descriptors")
    try:
        ids = [request.user, request.group, *map(int, request.groups)]
        variables = dict(variable.split("=", 1) for variable in request.environment)
    except ValueError as error:
        raise RequestInvalid(argument="environment, groups", value=str(error), reason="NAME=value, numbers") from None
    if not all(0 <= number <= _LARGEST_ID for number in ids):
        raise RequestInvalid(argument="user", value=str(ids), reason=f"must be 0 to {_LARGEST_ID}")
    return {
        "argv": request.argv,
        "environment": variables,
        "folder": request.folder,
        "user": ids[0],
        "group": ids[1],
        "groups": ids[2:],
        "network": request.network,
        "writable": request.writable,
        "places": places,
    }
