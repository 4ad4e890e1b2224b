"""A fresh process that mounts: run by ``python -m benchmarks.fresh``, it imports nothing before the clock runs.

``first IMAGE BACKEND`` prints as JSON what the first and the second mount took. ``hold IMAGE BACKEND COUNT`` mounts
COUNT times, prints the process id of its helper, and waits to be killed.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from contextlib import ExitStack


def first(image: str, backend: str) -> None:
    """Print seconds: the import, the helper's start, the first mount, all three, the second; and the helper's KiB."""
    clock = [time.perf_counter()]
    from pytest_imagemount.client import current_client
    from pytest_imagemount.config import Settings
    from pytest_imagemount.library import mount_image

    clock.append(time.perf_counter())
    helper = current_client(Settings.from_environment()).helper_pid
    clock.append(time.perf_counter())
    with mount_image(image, 1, backend=backend):
        clock.append(time.perf_counter())
    between = time.perf_counter()
    with mount_image(image, 1, backend=backend):
        second = time.perf_counter() - between
        resident = _resident(helper)
    imported, started, mounted = (after - before for before, after in itertools.pairwise(clock))
    names = ("import", "helper", "mount", "seconds", "second", "resident")
    print(
        json.dumps(dict(zip(names, (imported, started, mounted, clock[3] - clock[0], second, resident), strict=True)))
    )


def hold(image: str, backend: str, count: str) -> None:
    """Mount ``count`` times, say so, wait for the end of stdin."""
    from pytest_imagemount.client import current_client
    from pytest_imagemount.config import Settings
    from pytest_imagemount.library import mount_image

    with ExitStack() as stack:
        for _ in range(int(count)):
            stack.enter_context(mount_image(image, 1, backend=backend))
        print(current_client(Settings.from_environment()).helper_pid, flush=True)
        sys.stdin.read()


def _resident(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:  # noqa: PTH123  (pathlib would be imported before the clock runs)
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


if __name__ == "__main__":
    if sys.argv[1] == "first":
        first(*sys.argv[2:])
    else:
        hold(*sys.argv[2:])
