"""What may happen to a test run, and by what mechanism nothing is left of its mounts: the rows of the matrix."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Moment(Enum):
    """When it happens, in the life of the second of two mounts."""

    ATTACHING = "while attaching"
    MOUNTED = "while mounted"
    WAITING = "while waiting for a device"
    TEARDOWN = "during teardown"


class Actor(Enum):
    """Who makes it happen."""

    TEST = "the test's own code"
    OUTSIDE = "a signal from outside"
    TIMEOUT = "pytest-timeout"
    HELPER = "a fault injected in the helper"


EVERY_MOMENT = tuple(Moment)
KILLED = 128
"""Added to a signal's number where a process that the signal ended says so by its exit status."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One row.

    :param title: for people
    :param mechanism: what sees to it that nothing is left
    :param statuses: exit statuses of pytest that show that the event struck; negative: the signal that ended it
    :param worker_statuses: the same with ``-n 2``
    :param moments: when it can happen; the others are in ``no_moment``, each with the reason
    :param only: ``plain`` or ``workers`` where the other makes no sense, and ``no_mode`` is the reason
    :param only_backends: None for all, else ``no_backend`` is the reason why not the others
    :param spares_others: with ``-n 2`` the other worker's test has to pass
    """

    name: str
    title: str
    mechanism: str
    actor: Actor
    statuses: frozenset[int]
    worker_statuses: frozenset[int]
    moments: tuple[Moment, ...] = EVERY_MOMENT
    no_moment: Mapping[Moment, str] = field(default_factory=dict)
    only: str = ""
    no_mode: str = ""
    only_backends: tuple[str, ...] = ("loop", "fuse", "nbd")
    no_backend: str = ""
    spares_others: bool = True


def _without(reason: str, *moments: Moment) -> dict[Moment, str]:
    return {moment: reason for moment in Moment if moment not in moments}


def _undone_by_signal(number: signal.Signals, mechanism: str) -> Event:
    return Event(
        name=number.name.lower(),
        title=number.name,
        mechanism=mechanism,
        actor=Actor.OUTSIDE,
        statuses=frozenset({-number}),
        worker_statuses=frozenset({1}),
    )


_FAILED = frozenset({1})
_PASSED = frozenset({0})
_HELPER_SEES = "the helper sees the end of the process by its pidfd, and undoes everything in reverse order"
_WORKER_IS_ROW = "with -n 2 the process that holds the mounts is a worker: that is the row xdist worker SIGKILL"
_NO_WORKERS = "without -n there is neither a controller nor a worker"
_NO_DAEMON = "a raw image by loop has no storage daemon"
_NO_OVERLAY = "a raw image by loop has no overlay: mode overlay of a raw image goes through NBD or FUSE"

_IN_THE_TEST = (
    Event(
        name="test-failure",
        title="test failure",
        mechanism="the fixture's finalizer; an image that a thread still attaches is undone once it stands",
        actor=Actor.TEST,
        statuses=_FAILED,
        worker_statuses=_FAILED,
    ),
    Event(
        name="finalizer-exception",
        title="exception in the test's own finalizer",
        mechanism="pytest runs the other finalizers all the same; ours is one of them",
        actor=Actor.TEST,
        statuses=_FAILED,
        worker_statuses=_FAILED,
        moments=(Moment.TEARDOWN,),
        no_moment=_without("a finalizer runs at teardown only", Moment.TEARDOWN),
    ),
    Event(
        name="sys-exit",
        title="sys.exit in the test",
        mechanism="pytest counts it as a failure of the test; the fixture's finalizer",
        actor=Actor.TEST,
        statuses=_FAILED,
        worker_statuses=_FAILED,
    ),
    Event(
        name="pytest-exit",
        title="pytest.exit in the test",
        mechanism="pytest runs the finalizers of what is set up, ours among them, before it ends",
        actor=Actor.TEST,
        statuses=frozenset({7}),
        worker_statuses=frozenset({1, 2, 3, 7}),  # 3: pytest-xdist 3.8 calls it an internal error of its own
        spares_others=False,
    ),
    Event(
        name="os-exit",
        title="os._exit in the test",
        mechanism=f"no finalizer runs; {_HELPER_SEES}",
        actor=Actor.TEST,
        statuses=frozenset({3}),
        worker_statuses=_FAILED,
    ),
    Event(
        name="open-file",
        title="test holds an open file in the mount at teardown",
        mechanism="the unmount is tried for a second, then fails the test with the names of the holders; the file is "
        "closed by the end of the process, at the latest, and the helper, which goes on trying, unmounts then",
        actor=Actor.TEST,
        statuses=_FAILED,
        worker_statuses=_FAILED,
        moments=(Moment.TEARDOWN,),
        no_moment=_without("it matters at teardown only", Moment.TEARDOWN),
    ),
    Event(
        name="chdir",
        title="test changes its folder into the mount",
        mechanism="as for an open file: the end of the process leaves the folder",
        actor=Actor.TEST,
        statuses=_FAILED,
        worker_statuses=_FAILED,
        moments=(Moment.TEARDOWN,),
        no_moment=_without("it matters at teardown only", Moment.TEARDOWN),
    ),
    Event(
        name="disk-full",
        title="disk full while a qcow2 overlay grows",
        mechanism="the overlay is a file without a name: write errors reach the test, the unmount does not need the "
        "data, and the last descriptor takes the file along; an overlay that cannot even begin is taken down by the "
        "failing stage itself",
        actor=Actor.TEST,
        statuses=frozenset({0, 1}),
        worker_statuses=frozenset({0, 1}),
        moments=(Moment.ATTACHING, Moment.MOUNTED, Moment.TEARDOWN),
        no_moment={Moment.WAITING: "no overlay is made before there is a device"},
        only_backends=("fuse", "nbd"),
        no_backend=_NO_OVERLAY,
    ),
)

_BY_SIGNAL = (
    Event(
        name="ctrl-c",
        title="Ctrl-C once",
        mechanism="KeyboardInterrupt, and pytest runs the finalizers; during an undo it waits for the undo's end; the "
        "helper is in another session, and no Ctrl-C reaches it",
        actor=Actor.OUTSIDE,
        statuses=frozenset({2}),
        worker_statuses=frozenset({2}),
        spares_others=False,
    ),
    Event(
        name="ctrl-c-twice",
        title="Ctrl-C twice",
        mechanism="as for one; where the second tears a finalizer of pytest apart, the last hook of the run, and then "
        "the helper, undo what it has skipped",
        actor=Actor.OUTSIDE,
        statuses=frozenset({2, -signal.SIGINT}),
        worker_statuses=frozenset({2, -signal.SIGINT}),
        spares_others=False,
    ),
    _undone_by_signal(
        signal.SIGTERM, "a handler that is there while something is mounted raises it as Ctrl-C: the finalizers run"
    ),
    _undone_by_signal(signal.SIGHUP, "as SIGTERM"),
    _undone_by_signal(signal.SIGQUIT, f"no finalizer runs; {_HELPER_SEES}"),
    _undone_by_signal(signal.SIGSEGV, f"no finalizer runs; {_HELPER_SEES}"),
    Event(
        name="sigkill",
        title="SIGKILL",
        mechanism=f"no finalizer runs; {_HELPER_SEES}",
        actor=Actor.OUTSIDE,
        statuses=frozenset({-signal.SIGKILL}),
        worker_statuses=_FAILED,
        only="plain",
        no_mode=_WORKER_IS_ROW,
    ),
    Event(
        name="timeout-signal",
        title="pytest-timeout, method signal",
        mechanism="its SIGALRM handler fails the test, perhaps in the middle of a request: the reply that nobody waits "
        "for is told by its number, and the mount is released by the number that it got before",
        actor=Actor.TIMEOUT,
        statuses=_FAILED,
        worker_statuses=_FAILED,
    ),
    Event(
        name="timeout-thread",
        title="pytest-timeout, method thread",
        mechanism=f"it ends the process by os._exit; {_HELPER_SEES}",
        actor=Actor.TIMEOUT,
        statuses=_FAILED,
        worker_statuses=_FAILED,
    ),
)

_OF_WORKERS = (
    Event(
        name="worker-sigkill",
        title="xdist worker SIGKILL",
        mechanism=f"each worker has a helper of its own; {_HELPER_SEES}",
        actor=Actor.OUTSIDE,
        statuses=frozenset(),
        worker_statuses=_FAILED,
        only="workers",
        no_mode=_NO_WORKERS,
    ),
    Event(
        name="controller-sigkill",
        title="xdist controller SIGKILL",
        mechanism="the kernel sends each worker that has something mounted SIGTERM when its parent dies, and the "
        "worker's finalizers run",
        actor=Actor.OUTSIDE,
        statuses=frozenset(),
        worker_statuses=frozenset({-signal.SIGKILL}),
        only="workers",
        no_mode=_NO_WORKERS,
        spares_others=False,
    ),
    Event(
        name="controller-sigterm",
        title="xdist controller SIGTERM",
        mechanism="as for its SIGKILL: the controller holds no mount and dies at once",
        actor=Actor.OUTSIDE,
        statuses=frozenset(),
        worker_statuses=frozenset({-signal.SIGTERM}),
        only="workers",
        no_mode=_NO_WORKERS,
        spares_others=False,
    ),
)


def _helper_killed(where: str, title: str, moments: tuple[Moment, ...] = EVERY_MOMENT) -> Event:
    return Event(
        name=f"helper-sigkill{where}",
        title=title,
        mechanism="a device that is not mounted yet goes with its last descriptor (autoclear, disconnect on close), "
        "the storage daemon with its parent; the mounts stay, recorded in the journal, and the first mount of the next "
        "run reclaims them",
        actor=Actor.OUTSIDE,
        statuses=_FAILED,
        worker_statuses=_FAILED,
        moments=moments,
        no_moment=_without("the row helper SIGKILL has it", *moments),
    )


_OF_OUR_PROCESSES = (
    _helper_killed("", "helper SIGKILL"),
    _helper_killed("-early", "helper SIGKILL before the device is made", (Moment.ATTACHING,)),
    _helper_killed("-late", "helper SIGKILL right after mount(2)", (Moment.ATTACHING,)),
    Event(
        name="daemon-sigkill",
        title="qemu-storage-daemon SIGKILL",
        mechanism="the helper finds it dead: reads fail with EIO, the unmount does not need it, its FUSE mounts, dead "
        "now, are unmounted, and the next image gets a new daemon",
        actor=Actor.OUTSIDE,
        statuses=frozenset({0, 1}),
        worker_statuses=frozenset({0, 1}),
        only_backends=("fuse", "nbd"),
        no_backend=_NO_DAEMON,
    ),
)


def _stage_fails(stage: str, meaning: str) -> Event:
    return Event(
        name=f"{stage}-fails",
        title=f"failure in {stage}, at its start and at its end",
        mechanism=f"what {meaning} has made so far is on the stage's undo stack, and so are the stages before: all of "
        "it is undone before the error is reported; the next mount works",
        actor=Actor.HELPER,
        statuses=_PASSED,
        worker_statuses=_PASSED,
        moments=(Moment.ATTACHING,),
        no_moment=_without(f"{stage} is a stage of attaching", Moment.ATTACHING),
    )


def _undo_fails(stage: str, times: str) -> Event:
    for_long = times == "for 2 s"
    mechanism = "a failed step stays due: the end of the fixture's scope tries it again"
    if for_long:
        mechanism += ", the end of the run, and then the helper by itself for up to 30 s"
    no_backend = "what stands between a raw image and its loop device is one descriptor: this stage undoes nothing"
    return Event(
        name=f"{stage}-fails-{'long' if for_long else 'once'}",
        title=f"failure in {stage}, {times}",
        mechanism=mechanism,
        actor=Actor.HELPER,
        statuses=_FAILED,
        worker_statuses=_FAILED,
        moments=(Moment.TEARDOWN,),
        no_moment=_without(f"{stage} is a stage of teardown", Moment.TEARDOWN),
        only_backends=("fuse", "nbd") if stage == "detach" else ("loop", "fuse", "nbd"),
        no_backend=no_backend,
    )


_INJECTED = (
    _stage_fails("attach", "attach"),
    _stage_fails("map", "map"),
    _stage_fails("mount", "mount"),
    *(_undo_fails(stage, times) for stage in ("unmount", "unmap", "detach") for times in ("once", "for 2 s")),
)

EVENTS = (*_IN_THE_TEST, *_BY_SIGNAL, *_OF_WORKERS, *_OF_OUR_PROCESSES, *_INJECTED)
