"""What signals do to a run that has an image mounted: real signals, real processes, real mounts."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.undo import wait_until

from .runs import Run

if TYPE_CHECKING:
    from pytest_imagemount.factory import ImageFactory

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs")

WAITING = """
import os, pathlib, time
import pytest

@pytest.fixture
def finalized():
    yield
    pathlib.Path("finalized").write_text("yes")

def test_waits(finalized, mounted_image):
    with mounted_image({disk!r}) as image:
        pathlib.Path("mounted.new").write_text(f"{{os.getpid()}} {{image.root}}")
        pathlib.Path("mounted.new").rename("mounted")
        time.sleep(600)

def test_next():
    pathlib.Path("next").write_text("ran")
"""


@pytest.fixture
def folder(tmp_path: Path, image_factory: ImageFactory) -> Path:
    """Where the run is: a test that mounts and then waits."""
    disk = image_factory(fstype="ext4", content={"f": "x"})
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(WAITING.format(disk=str(disk)))
    return tmp_path


def write_test(folder: Path, text: str) -> None:
    """``DISK`` in the text is the path of the image."""
    disk = (folder / "test_it.py").read_text().partition("mounted_image('")[2].partition("'")[0]
    (folder / "test_it.py").write_text("import os, pathlib, signal, time\n" + text.replace("DISK", repr(disk)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_finalizers_run_and_then_the_process_ends_by_that_signal(folder: Path, number: signal.Signals) -> None:
    with Run(folder) as run:
        run.wait_for("mounted")
        run.send(number)
        status, output = run.end()
    assert status == -number
    assert run.wrote("finalized")
    assert not run.wrote("next")
    assert f"Terminated: {number.name}" in output
    assert "no tests ran" in output  # the summary is printed as after Ctrl-C


@pytest.mark.parametrize("how", ["option", "ini", "environment"])
def test_it_can_be_switched_off(folder: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "ini":
        (folder / "pytest.ini").write_text("[pytest]\nimagemount_signals = never\n")
    elif how == "environment":
        monkeypatch.setenv("IMAGEMOUNT_SIGNALS", "never")
    with Run(folder, *(["--imagemount-signals=never"] if how == "option" else [])) as run:
        run.wait_for("mounted")
        run.send(signal.SIGTERM)
        status, _ = run.end()
    assert status == -signal.SIGTERM
    assert not run.wrote("finalized")


def test_ctrl_c_once_runs_the_finalizers(folder: Path) -> None:
    with Run(folder) as run:
        run.wait_for("mounted")
        run.press_ctrl_c()
        status, output = run.end()
    assert status == pytest.ExitCode.INTERRUPTED
    assert run.wrote("finalized")
    assert "KeyboardInterrupt" in output
    assert "left behind" not in output


SLOW_FINALIZER = """
import pytest

@pytest.fixture(scope="module")
def lasting(module_mounted_image):
    return module_mounted_image(DISK).__enter__()

@pytest.fixture
def slow():
    yield
    pathlib.Path("finalizing").write_text("now")
    time.sleep(600)

def test_waits(lasting, slow):
    pathlib.Path("mounted").write_text(str(lasting.root))
    time.sleep(600)
"""


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_in_a_finalizer_does_not_keep_the_mount(folder: Path, second: signal.Signals) -> None:
    write_test(folder, SLOW_FINALIZER)
    with Run(folder) as run:
        root = Path(run.wait_for("mounted"))
        run.send(signal.SIGINT)
        run.wait_for("finalizing")
        assert root.is_mount()
        run.send(second)
        status, output = run.end()
    assert status == -second
    assert "left behind" not in output


SIGNALS_DURING_THE_UNDO = """
from pytest_imagemount.client import Client
from pytest_imagemount.helper.protocol import Release

def test_it(mounted_image, monkeypatch):
    ask = Client.ask

    def interrupted(self, request, *rest):
        if isinstance(request, Release):
            for _ in range(3):
                os.kill(os.getpid(), signal.NUMBER)
                time.sleep(0.01)
            reply = ask(self, request, *rest)
            pathlib.Path("undone").write_text("yes")
            return reply
        return ask(self, request, *rest)

    monkeypatch.setattr(Client, "ask", interrupted)
    with mounted_image(DISK) as image:
        root = image.root
    pathlib.Path("still here").write_text("the signal was lost")

def test_next():
    pathlib.Path("next").write_text("ran")
"""


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, pytest.ExitCode.INTERRUPTED), (signal.SIGTERM, -signal.SIGTERM)]
)
def test_signals_during_an_undo_wait_for_its_end(folder: Path, number: signal.Signals, expected: int) -> None:
    write_test(folder, SIGNALS_DURING_THE_UNDO.replace("NUMBER", number.name))
    with Run(folder) as run:
        status, _ = run.end()
    assert status == expected
    assert run.wrote("undone")
    assert not run.wrote("still here")
    assert not run.wrote("next")


SWALLOWED = """
def test_swallows(mounted_image):
    with mounted_image(DISK):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(600)
        except BaseException:
            pathlib.Path("swallowed").write_text("yes")

def test_next():
    pathlib.Path("next").write_text("ran")
"""


def test_a_sigterm_that_a_test_swallows_ends_the_run_after_it(folder: Path) -> None:
    write_test(folder, SWALLOWED)
    with Run(folder) as run:
        status, output = run.end()
    assert run.wrote("swallowed")
    assert not run.wrote("next")
    assert status == -signal.SIGTERM
    assert "1 passed" in output


IN_ONE_PROCESS = """
import multiprocessing
import threading

def default():
    return [signal.getsignal(number) is signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP)]

def test_handlers_are_set_only_while_something_is_mounted(mounted_image):
    assert default() == [True, True]
    with mounted_image(DISK):
        assert default() == [False, False]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        with mounted_image(DISK):
            pass
        assert default() == [False, False]
    assert default() == [True, True]

def test_handlers_that_are_not_the_default_stay(mounted_image):
    def mine(number, frame): pass
    signal.signal(signal.SIGTERM, mine)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with mounted_image(DISK):
            assert signal.getsignal(signal.SIGTERM) is mine
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

def test_a_handler_that_a_test_sets_while_mounted_stays(mounted_image):
    def mine(number, frame): pass
    with mounted_image(DISK):
        before = signal.signal(signal.SIGTERM, mine)
    assert signal.getsignal(signal.SIGTERM) is mine
    signal.signal(signal.SIGTERM, before)
    with mounted_image(DISK):
        pass
    assert default() == [True, True]

def test_a_thread_mounts_without_handlers(mounted_image):
    seen = []
    def work():
        with mounted_image(DISK) as image:
            seen.append((image / "f").read_text())
            seen.append(default())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == ["x", [True, True]]

def test_the_last_unmount_in_a_thread_leaves_a_handler_that_does_nothing_else(mounted_image):
    pending = mounted_image(DISK)
    pending.__enter__()
    thread = threading.Thread(target=pending.close)
    thread.start()
    thread.join()
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    with mounted_image(DISK):
        pass
    assert default() == [True, True]

def test_a_forked_child_dies_of_sigterm_and_leaves_the_mount(mounted_image):
    with mounted_image(DISK) as image:
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        process.start()
        process.terminate()
        process.join()
        assert process.exitcode == -signal.SIGTERM
        assert (image / "f").read_text() == "x"

def test_a_forked_child_that_leaves_the_block_leaves_the_mount(mounted_image):
    with mounted_image(DISK) as image:
        if os.fork() == 0:
            image.unmount()
            os._exit(0)
        assert os.wait()[1] == 0
        assert image.root.is_mount()

def test_the_library_leaves_handlers_alone():
    from pytest_imagemount import mount_image
    with mount_image(DISK):
        assert default() == [True, True]
"""


def test_handlers_in_one_process(folder: Path) -> None:
    write_test(folder, IN_ONE_PROCESS)
    with Run(folder, "-W", "ignore::DeprecationWarning") as run:
        status, output = run.end()
    assert status == 0, output
    assert "8 passed" in output


def test_a_worker_ends_its_mounts_at_once_when_its_controller_is_killed(folder: Path) -> None:
    for number in (signal.SIGKILL, signal.SIGTERM):
        with Run(folder, "-n", "2") as run:
            _, root = run.wait_for("mounted").split()
            run.send(number)
            # execnet interrupts its worker 5 s after the controller's end.
            assert wait_until(lambda root=root: not Path(root).is_mount(), 2)  # type: ignore[misc]
            status, _ = run.end()
        assert status == -number
        assert run.wrote("finalized")
        for name in ("mounted", "finalized", "next"):
            (folder / name).unlink(missing_ok=True)


def test_ctrl_c_with_workers_runs_their_finalizers(folder: Path) -> None:
    with Run(folder, "-n", "2") as run:
        run.wait_for("mounted")
        run.press_ctrl_c()
        status, _ = run.end(30)
    assert status == pytest.ExitCode.INTERRUPTED
    assert run.wrote("finalized")


def test_a_worker_that_gets_sigterm_runs_its_finalizers_and_counts_as_crashed(folder: Path) -> None:
    with Run(folder, "-n", "2", "--max-worker-restart=0") as run:
        pid, _ = run.wait_for("mounted").split()
        os.kill(int(pid), signal.SIGTERM)
        status, output = run.end(30)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert run.wrote("finalized")
    assert "crashed" in output
