"""The tests of a cell: one is struck by the event, with two images mounted or nearly so, the other is in its worker.

Copied into the folder of each cell and run there by a pytest of its own; no test of this project's suite.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount import helper_start
from pytest_imagemount.client import Client
from pytest_imagemount.errors import ImageMountError
from pytest_imagemount.pending import LIVE
from tests.fault_matrix.in_helper import argv_with_faults
from tests.fault_matrix.script import Script, tell, tell_now, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_imagemount.mounted_image import MountedImage
    from pytest_imagemount.pending import Pending
    from pytest_imagemount.plugin import MountFactory

FOLDER = Path(__file__).parent
SCRIPT = Script.read(FOLDER)
TOO_MUCH = 12 << 20  # bytes: more than the temporary folder of a cell with a full disk can take
kept_open: list[object] = []


def timed(test: Callable[..., None]) -> Callable[..., None]:
    """The test, with pytest-timeout where that is the event."""
    mark = pytest.mark.timeout(SCRIPT.timeout, method=SCRIPT.timeout_method, func_only=True)
    return mark(test) if SCRIPT.timeout else test


@pytest.fixture
def own_finalizer(mounted_image: MountFactory) -> Iterator[None]:
    """Has its finalizer run before that of mounted_image."""
    yield
    if SCRIPT.event == "finalizer-exception":
        come_to_the_moment()
        tell_now(FOLDER, "event")
        raise RuntimeError("the event: an exception in a finalizer")


@pytest.fixture
def first(own_finalizer: None, mounted_image: MountFactory, monkeypatch: pytest.MonkeyPatch) -> MountedImage:
    """The first image, mounted, by a helper in which the script's faults are, and written to where that may be."""
    monkeypatch.setattr(helper_start, "helper_argv", partial(argv_with_faults, SCRIPT))
    tell_when_waiting(monkeypatch)
    if SCRIPT.workers:
        wait_for(FOLDER, "other is mounted")
    image = mounted_image(SCRIPT.image, 1, mode=SCRIPT.mode, backend=SCRIPT.backend).__enter__()
    if SCRIPT.mode == "overlay":
        (image / "written").write_text("by the test")
    tell(FOLDER, "struck process", str(os.getpid()))
    tell(FOLDER, "helper", str(LIVE.helper))
    return image


def tell_when_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """See to it that the driver learns when the helper says for the first time that every device is busy."""
    original = Client.ask

    def ask(self: Client, *arguments: Any) -> dict[str, Any]:
        reply = original(self, *arguments)
        if "busy" in reply:
            tell(FOLDER, "reached")
        return reply

    monkeypatch.setattr(Client, "ask", ask)


@timed
def test_struck(first: MountedImage, mounted_image: MountFactory) -> None:
    tell_now(FOLDER, "started")
    second = mounted_image(SCRIPT.second, 1, mode=SCRIPT.second_mode, backend=SCRIPT.backend)
    if SCRIPT.event == "disk-full":
        fill_the_disk(second)
    elif SCRIPT.fail:
        fail_in_a_stage(mounted_image, second)
    elif SCRIPT.moment in ("ATTACHING", "WAITING"):
        aside(second.__enter__)
    elif SCRIPT.moment == "TEARDOWN":
        image = second.__enter__()
        if SCRIPT.event == "open-file":
            kept_open.append((image.root / "etc/hostname").open())
        elif SCRIPT.event == "chdir":
            os.chdir(image.root)
        elif SCRIPT.event != "finalizer-exception":
            aside(image.unmount)
            return
        if SCRIPT.event != "finalizer-exception":
            come_to_the_moment()
            tell_now(FOLDER, "event")
    else:
        second.__enter__()
        come_to_the_moment()
        if SCRIPT.by_test:
            strike()
        outlive(first)


def come_to_the_moment() -> None:
    """Let the driver see what is mounted before the event."""
    tell(FOLDER, "reached")
    wait_for(FOLDER, "seen")


def aside(work: Any) -> None:
    """Do what the event shall interrupt; in another thread, where it is this test's own code that makes it happen."""
    if not SCRIPT.by_test:
        work()
        wait_for(FOLDER, "event")
        return

    def quietly() -> None:
        try:
            work()
        except ImageMountError:
            tell(FOLDER, "refused")

    threading.Thread(target=quietly, daemon=True).start()
    wait_for(FOLDER, "seen")
    strike()


def strike() -> None:
    """The event, where it is a test's own code."""
    tell_now(FOLDER, "event")
    match SCRIPT.event:
        case "test-failure":
            pytest.fail("the event: a failure")
        case "sys-exit":
            sys.exit(3)
        case "pytest-exit":
            pytest.exit("the event: pytest.exit", returncode=7)
        case "os-exit":
            os._exit(3)
        case other:
            raise AssertionError(f"no test makes {other} happen")


def outlive(image: MountedImage) -> None:
    """Wait for the event to strike; what does not end this process lets it go on, to use what it has mounted."""
    wait_for(FOLDER, "event")
    if SCRIPT.event.startswith("daemon"):
        read_anything(image)
    elif not SCRIPT.event.startswith("helper"):
        wait_for(FOLDER, "never", 30)


def read_anything(image: MountedImage) -> None:
    """Read what may not be cached; an error is as good as data here."""
    try:
        list(image.root.iterdir())
        (image.root / "large").read_bytes()
    except OSError:
        tell(FOLDER, "reading failed")


def fail_in_a_stage(mounted_image: MountFactory, second: Pending[MountedImage]) -> None:
    """Two mounts that fail and one that succeeds, or one whose undo fails."""
    if SCRIPT.moment == "TEARDOWN":
        with second:
            come_to_the_moment()
        raise AssertionError("the undo did not fail")
    come_to_the_moment()
    for _ in range(2):
        with pytest.raises(ImageMountError, match="injected"):
            second.__enter__()
    with second as image:
        assert (image / "etc/hostname").read_text() == "web01\n"


def fill_the_disk(second: Pending[MountedImage]) -> None:
    """Let an overlay grow until the temporary folder is full: at its making, in a write, or in what the kernel writes
    at the unmount."""
    come_to_the_moment()
    if SCRIPT.moment == "ATTACHING":
        with pytest.raises(ImageMountError):
            second.__enter__()
        tell_now(FOLDER, "event")
        return
    with second as image:
        file = (image.root / "grown").open("wb", buffering=0)
        file.write(os.urandom(TOO_MUCH))
        if SCRIPT.moment == "MOUNTED":
            with pytest.raises(OSError):
                os.fsync(file.fileno())
            tell_now(FOLDER, "event")
        else:
            tell_now(FOLDER, "event")
        file.close()


def test_other_worker(mounted_image: MountFactory) -> None:
    """Has an image mounted while the event strikes the other worker."""
    with mounted_image(SCRIPT.others, 1, backend=SCRIPT.backend) as image:
        tell(FOLDER, "other is mounted")
        wait_for(FOLDER, "event")
        assert (image / "etc/hostname").read_text() == "web01\n"
    tell(FOLDER, "other has passed")


def test_next_run(mounted_image: MountFactory) -> None:
    """The first mount of the run after one whose helper was killed."""
    with mounted_image(SCRIPT.image, 1, backend=SCRIPT.backend) as image:
        assert (image / "etc/hostname").read_text() == "web01\n"
        tell_now(FOLDER, "next run has mounted")
