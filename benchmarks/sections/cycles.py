"""One cycle: image → mounted file system → nothing, by this plugin and by everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..bench import FSTYPE, WINDOW, lacking
from ..floor import system_calls
from ..peers import PEERS
from ..rounds import Case, timed
from .section import Results, Section, markdown_table, milliseconds, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..bench import Bench
    from ..peers import Peer
    from ..rounds import Outcomes

FLOOR = "raw: the system calls alone"
FIXTURE_RAW = "raw: mounted_image"
FIXTURE_FUSE = "qcow2: mounted_image, by FUSE"
FIXTURE_NBD = "qcow2: mounted_image, by NBD"
QEMU_NBD = "qcow2: qemu-nbd -c, mount, umount, qemu-nbd -d"
OURS = (FIXTURE_RAW, FIXTURE_NBD, FIXTURE_FUSE)


def measure(bench: Bench) -> Outcomes:
    """Every case that this machine can run, in one set of interleaved rounds."""
    from ..rounds import interleave

    raw, qcow2 = bench.image("raw"), bench.image("qcow2")
    target = bench.make_folder("target")
    ours = [
        Case(FLOOR, timed(system_calls(raw, WINDOW, FSTYPE, target)), missing=lacking("loop")),
        Case(FIXTURE_RAW, timed(bench.cycle(raw, "loop")), missing=lacking("loop")),
        Case(FIXTURE_FUSE, timed(bench.cycle(qcow2, "fuse")), missing=lacking("loop", "fuse")),
        Case(FIXTURE_NBD, timed(bench.cycle(qcow2, "nbd")), missing=lacking("nbd")),
    ]
    cases = {case.name: case for case in ours}
    for peer in PEERS:
        for format in peer.formats:
            case = _case(bench, peer, format)
            cases[case.name] = case
    by_format = sorted(cases.values(), key=lambda case: not case.name.startswith("raw"))
    return interleave(by_format, bench.rounds(200, lab=20, quick=2))


def _case(bench: Bench, peer: Peer, format: str) -> Case:
    image = bench.image(format)
    target = bench.make_folder("target")
    missing = peer.missing
    if not missing and bench.quick and not peer.in_lab:
        missing = "takes too long for --quick"
    # The warm-up of guestmount builds its appliance, once a machine.
    cycle = timed(lambda: peer.cycle(image, format, target))
    return Case(f"{format}: {peer.name}", cycle, rounds=peer.rounds, missing=missing, peer=True)


def table(results: Results) -> list[str]:
    """Both kernels in one table; a ratio is to a case of the same kernel."""
    head = ("kernel", "image", "cycle", "median", "IQR", "rounds", "x system calls", "x mounted_image")
    rows = _rows("this machine", results.here)
    if results.lab is not None:
        rows += _rows("lab", results.lab)
    return markdown_table(head, rows, left=3)


def _rows(kernel: str, outcomes: Outcomes) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, outcome in outcomes.items():
        image, _, cycle = name.partition(": ")
        if name in OURS:
            cycle = f"**{cycle}**"
        if not outcome.values():
            rows.append((kernel, image, f"{cycle}: {_first_line(outcome.missing)}", "-", "-", "-", "-", "-"))
            continue
        rows.append(
            (
                kernel,
                image,
                cycle + (f" (then {_first_line(outcome.missing)})" if outcome.missing else ""),
                milliseconds(outcome.median()),
                milliseconds(outcome.spread()),
                str(len(outcome.values())),
                times(outcome, outcomes[FLOOR]),
                times(outcome, outcomes[_ours_for(image, outcomes)]),
            )
        )
    return rows


def _ours_for(image: str, outcomes: Outcomes) -> str:
    """The fixture's own case for this image: what ``backend="auto"`` would take."""
    return next(name for name in OURS if name.startswith(image) and (outcomes[name].values() or name is OURS[-1]))


def _first_line(text: str) -> str:
    return text.partition("\n")[0].replace("|", "/")


def draw(results: Results, axes: Axes) -> None:
    """Bars on a logarithmic scale, both kernels."""
    bars: list[tuple[str, float, str]] = []
    for kernel, outcomes in (("this machine", results.here), ("lab", results.lab or {})):
        for name, outcome in outcomes.items():
            median = outcome.median()
            if median is not None:
                colour = "#0b7285" if name in OURS else "#495057" if name == FLOOR else "#ced4da"
                bars.append((f"{kernel}, {name}", median * 1000, colour))
    bars.reverse()
    places = range(len(bars))
    axes.barh(places, [value for _, value, _ in bars], color=[colour for _, _, colour in bars])
    axes.set_yticks(places, [name for name, _, _ in bars], fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("ms a cycle, median, logarithmic")
    for place, (_, value, _) in zip(places, bars, strict=True):
        axes.annotate(f" {value:.3g}" if value < 100 else f" {value:,.0f}", (value, place), va="center", fontsize=8)
    axes.margins(x=0.15)


SECTION = Section(
    key="cycles",
    title="One cycle",
    about=(
        "A GPT disk with one ext4 of 32 MiB: mount partition 1 read-only, unmount. `mounted_image` is the fixture in a "
        "running test. The other programs mount the same window with the same options, without the sleeps that "
        "scripts put between them. Ratios are to the same kernel's cases, medians of the ratios within the rounds."
    ),
    measure=measure,
    table=table,
    draw=draw,
    in_lab=True,
)
