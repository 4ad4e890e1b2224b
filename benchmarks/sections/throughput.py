"""Reading inside the mount, against converting the image to raw first."""

from __future__ import annotations

import os
import random
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from pytest_imagemount import programs
from pytest_imagemount.factory import File, build_image

from ..bench import IN_LAB, MIB, lacking, write_back
from ..rounds import Case, interleave
from .section import Results, Section, markdown_table, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from matplotlib.axes import Axes

    from ..bench import Bench
    from ..rounds import Outcomes

    Prepared = Callable[[], AbstractContextManager[Path]]

_CHUNK, _BLOCK = 1 * MIB, 4096
CASES = ("raw, by loop", "qcow2, by FUSE", "qcow2, by NBD", "qcow2, qemu-img convert, then raw by loop")


def measure(bench: Bench) -> Outcomes:
    """Each round mounts anew, so that the kernel's cache of the mounted file system is empty."""
    size = (8 if bench.quick else 64 if IN_LAB else 256) * MIB
    raw, qcow2 = _images(bench, size)
    converted = bench.folder / "converted.raw"

    @contextmanager
    def as_it_is(image: Path) -> Iterator[Path]:
        yield image

    @contextmanager
    def convert(image: Path) -> Iterator[Path]:
        try:
            programs.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(image), str(converted)])
            yield converted
        finally:
            converted.unlink(missing_ok=True)

    ways = zip(
        CASES,
        (as_it_is, as_it_is, as_it_is, convert),
        (raw, qcow2, qcow2, qcow2),
        ("loop", "fuse", "nbd", "loop"),
        (("loop",), ("loop", "fuse"), ("nbd",), ("loop", "qemu-img")),
        strict=True,
    )
    cases = [
        Case(name, _read(bench, partial(prepared, image), backend, size), missing=lacking(*needs))
        for name, prepared, image, backend, needs in ways
    ]
    outcomes = interleave(cases, bench.rounds(10, lab=3))
    for path in (raw, qcow2):
        path.unlink()
    return outcomes


def _images(bench: Bench, size: int) -> tuple[Path, Path]:
    """The same disk in raw and qcow2, with one file ``data`` of ``size`` random bytes, which nothing compresses."""
    data = bench.folder / "data"
    with data.open("wb") as file:
        for _ in range(size // _CHUNK):
            file.write(os.urandom(_CHUNK))
    partition = {"fstype": "ext4", "content": {"data": File(data)}}
    disks = [
        build_image(bench.folder / f"throughput.{format}", format=format, table="gpt", partitions=[partition])
        for format in ("raw", "qcow2")
    ]
    data.unlink()
    for disk in disks:
        write_back(disk)
    return disks[0], disks[1]


def _read(bench: Bench, prepared: Prepared, backend: str, size: int) -> Callable[[], Mapping[str, float]]:
    reads = 100 if bench.quick else 500 if IN_LAB else 4000
    offsets = random.Random(size)

    def run() -> Mapping[str, float]:
        start = time.perf_counter()
        with prepared() as disk:
            with bench.mount(disk, 1, backend=backend) as image, (image.root / "data").open("rb", buffering=0) as file:
                ready = time.perf_counter()
                while file.read(_CHUNK):
                    pass
                read = time.perf_counter()
            # Mounted anew: what was read is not to be found in any cache of the way.
            with bench.mount(disk, 1, backend=backend) as image, (image.root / "data").open("rb", buffering=0) as file:
                again = time.perf_counter()
                for _ in range(reads):
                    os.pread(file.fileno(), _BLOCK, offsets.randrange(size // _BLOCK) * _BLOCK)
                end = time.perf_counter()
        return {
            "prepare": ready - start,
            "sequential": size / MIB / (read - ready),
            "random": reads / (end - again),
            "whole": read - start,
        }

    return run


def table(results: Results) -> list[str]:
    """Both kernels in one table."""
    rows = []
    for kernel, outcomes in (("this machine", results.here), ("lab", results.lab or {})):
        for name, outcome in outcomes.items():
            if outcome.values("sequential"):
                cells = [
                    milliseconds(outcome.median("prepare")),
                    f"{outcome.median('sequential') or 0:.0f} MB/s",
                    f"{outcome.median('random') or 0:.0f}/s",
                    milliseconds(outcome.median("whole")),
                ]
                rows.append((kernel, name, *cells))
            else:
                rows.append((kernel, f"{name}: {outcome.missing.partition(chr(10))[0]}", *"-" * 4))
    head = ("kernel", "way", "until mounted", "sequential", "random 4 KB", "mounted and all read once")
    return markdown_table(head, rows, left=2)


def draw(results: Results, axes: Axes) -> None:
    """Bars: sequential reading, both kernels."""
    bars = [
        (f"{kernel}, {name}", median)
        for kernel, outcomes in (("this machine", results.here), ("lab", results.lab or {}))
        for name, outcome in outcomes.items()
        if (median := outcome.median("sequential")) is not None
    ]
    bars.reverse()
    places = range(len(bars))
    axes.barh(places, [value for _, value in bars], color="#0b7285")
    axes.set_yticks(places, [name for name, _ in bars], fontsize=8)
    axes.set_xlabel("MB/s, sequential, median")
    for place, (_, value) in zip(places, bars, strict=True):
        axes.annotate(f" {value:.0f}", (value, place), va="center", fontsize=8)
    axes.margins(x=0.12)


SECTION = Section(
    key="throughput",
    title="Reading inside the mount",
    about=(
        "One file of 256 MB (64 MB in the lab) of random bytes, read in pieces of 1 MB, then 4 KB at random places. "
        "The image is in the machine's page cache and the mounted file system's cache is empty: the way is compared, "
        "not the disk. Converting first reads faster afterwards, and has to write the whole image before."
    ),
    measure=measure,
    table=table,
    draw=draw,
    in_lab=True,
)
