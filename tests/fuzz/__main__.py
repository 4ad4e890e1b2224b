"""``./tests/fuzz/run [SECONDS] [TARGET …]``: feed the readers of hostile bytes for a while.

With atheris, which is guided by what code is reached; without it, by changes to the seeds alone. What breaks a reader
is written to a file beside the known cases, which a unit test runs from then on.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import importlib
import importlib.util
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from tests.fuzz.mutations import mutated

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

TARGETS = ("formats", "compressed", "tables", "storage_daemon")
CASES = Path(__file__).parent / "cases"
LONGEST = 10
"""Seconds that one input may take."""
_MEMORY = 2 << 30
_GUIDED = ("formats", "compressed", "tables")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 where nothing was found."""
    parser = argparse.ArgumentParser(prog="./tests/fuzz/run", description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("seconds", nargs="?", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random numbers (default: the time)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.here:
        _run(options.targets[0], options.seconds, options.seed)
        return 0
    # A process for each: a crash or a hang of one ends no other.
    command = [sys.executable, "-m", "tests.fuzz", "--here", "--seed", str(options.seed), str(options.seconds)]
    statuses = {target: subprocess.call([*command, target]) for target in options.targets or TARGETS}
    for target, status in statuses.items():
        print(f"{target}: {'nothing found' if not status else f'ended with {status}'}", file=sys.stderr)
    return int(any(statuses.values()))


def _run(target: str, seconds: int, seed: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if target in _GUIDED and importlib.util.find_spec("atheris"):
        _run_guided(target, seconds, seed)
    else:
        _run_mutations(target, seconds, seed)


def _run_guided(target: str, seconds: int, seed: int) -> None:
    import atheris  # type: ignore[import-untyped,import-not-found,unused-ignore]

    with atheris.instrument_imports(include=["pytest_imagemount"]):
        module = importlib.import_module(f"tests.fuzz.{target}")
    with tempfile.TemporaryDirectory(prefix="imagemount-fuzz-") as folder:
        for name, data in {**module.seeds(), **_cases(target)}.items():
            (Path(folder) / hashlib.sha256(name.encode()).hexdigest()[:12]).write_bytes(data)
        found = CASES / target
        found.mkdir(parents=True, exist_ok=True)
        flags = [
            f"-max_total_time={seconds}",
            f"-timeout={LONGEST}",
            f"-rss_limit_mb={_MEMORY >> 20}",
            f"-seed={seed % (1 << 31)}",
            f"-artifact_prefix={found}/",
            "-max_len=600000",
            "-print_final_stats=1",
            "-verbosity=0",
        ]
        atheris.Setup([target, *flags, folder], module.fuzz_one)
        atheris.Fuzz()


def _run_mutations(target: str, seconds: int, seed: int) -> None:
    module: ModuleType = importlib.import_module(f"tests.fuzz.{target}")
    if target in _GUIDED:  # the others start programs, which would inherit it
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    seeds = [*module.seeds().values(), *_cases(target).values()]
    chance = random.Random(seed)
    end, count, slowest = time.monotonic() + seconds, 0, 0.0
    while (start := time.monotonic()) < end:
        data = mutated(chance.choice(seeds), seeds, chance)
        faulthandler.dump_traceback_later(LONGEST, exit=True)
        try:
            module.fuzz_one(data)
        except BaseException:
            path = keep(target, data)
            print(f"{target}: after {count} inputs, kept as {path}:\n{traceback.format_exc()}", file=sys.stderr)
            raise
        count, slowest = count + 1, max(slowest, time.monotonic() - start)
    faulthandler.cancel_dump_traceback_later()
    print(f"{target}: {count} inputs in {seconds} s, the slowest in {slowest:.3f} s, seed {seed}")


def keep(target: str, data: bytes) -> Path:
    """Write what broke ``target`` where the unit test finds it."""
    path = CASES / target / f"crash-{hashlib.sha256(data).hexdigest()[:16]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _cases(target: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((CASES / target).glob("*"))}


if __name__ == "__main__":
    sys.exit(main())
