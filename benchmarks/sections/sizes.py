"""The size of the image, which must not matter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..bench import FSTYPE, WINDOW, lacking
from ..floor import system_calls
from ..rounds import Case, interleave, timed
from .section import Results, Section, markdown_table, megabytes, milliseconds, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..bench import Bench
    from ..rounds import Outcomes

SIZES = (64 << 20, 1 << 30, 32 << 30, 1 << 40)
_FLOOR = "the system calls alone"
_OURS = ("raw", "qcow2, by FUSE")


def measure(bench: Bench) -> Outcomes:
    """Sparse images of every size, in one set of rounds."""
    target = bench.make_folder("target")
    cases = []
    for size in SIZES:
        raw, qcow2 = bench.image("raw", size), bench.image("qcow2", size)
        named = megabytes(size)
        floor = timed(system_calls(raw, WINDOW, FSTYPE, target))
        cases += [
            Case(f"{_FLOOR}: {named}", floor, missing=lacking("loop")),
            Case(f"{_OURS[0]}: {named}", timed(bench.cycle(raw, "loop")), missing=lacking("loop")),
            Case(f"{_OURS[1]}: {named}", timed(bench.cycle(qcow2, "fuse")), missing=lacking("loop", "fuse")),
        ]
    return interleave(cases, bench.rounds(60))


def table(results: Results) -> list[str]:
    """A row a size; ``x`` is to the smallest."""
    smallest = megabytes(SIZES[0])
    rows = []
    for size in SIZES:
        cells = []
        for name in (_FLOOR, *_OURS):
            outcome = results.outcome(f"{name}: {megabytes(size)}")
            cells += [milliseconds(outcome.median()), times(outcome, results.outcome(f"{name}: {smallest}"))]
        rows.append((megabytes(size), *cells))
    heads = [cell for name in (_FLOOR, *_OURS) for cell in (name, f"x {smallest}")]
    return markdown_table(("disk", *heads), rows)


def draw(results: Results, axes: Axes) -> None:
    """Time of a cycle over the size of the disk."""
    for name in (_FLOOR, *_OURS):
        medians = [results.outcome(f"{name}: {megabytes(size)}").median() for size in SIZES]
        points = [(size, median * 1000) for size, median in zip(SIZES, medians, strict=True) if median is not None]
        axes.plot([size for size, _ in points], [median for _, median in points], marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_xticks(SIZES, [megabytes(size) for size in SIZES])
    axes.set_xlabel("virtual size of the disk")
    axes.set_ylabel("ms a cycle, median")
    axes.set_ylim(bottom=0)
    axes.legend()


SECTION = Section(
    key="sizes",
    title="Size of the image",
    about="Sparse disks with the same ext4 of 32 MiB: the disk grows, and the spare partition table at its end moves.",
    measure=measure,
    table=table,
    draw=draw,
)
