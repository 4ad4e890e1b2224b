"""Whatever line an interrupt hits between the claim of a mount and its release, the scope's end releases it."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount import session as session_module
from pytest_imagemount.config import Settings
from pytest_imagemount.errors import RequestInvalid, TeardownError
from pytest_imagemount.helper.protocol import Open, Release
from pytest_imagemount.pending import LIVE
from pytest_imagemount.session import MountSession
from pytest_imagemount.signals import Terminated
from tests.interruptions import interrupted, press_ctrl_c, raise_anyway

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_imagemount.helper.protocol import Request


class FakeClient:
    """A helper that only keeps account."""

    helper_pid = 1

    def __init__(self, mountpoint: Path) -> None:
        self.pid = os.getpid()
        self.held: set[int] = set()
        self.busy: list[int] = []
        self.released: list[int] = []
        self.in_open: Callable[[], None] = lambda: None
        self._mountpoint = mountpoint
        self._mount = 0

    def new_mount(self) -> int:
        self._mount += 1
        return self._mount

    def ask(self, request: Request, descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
        if isinstance(request, Open):
            self.held.add(request.mount)
            self.in_open()
            return {"facts": self._facts(request)}
        assert isinstance(request, Release)
        if request.mount in self.busy:
            raise TeardownError(subject="it", failures=["it is busy"])
        self.released.append(request.mount)
        self.held.discard(request.mount)
        return {}

    def _facts(self, request: Open) -> dict[str, Any]:
        names = ("partition", "fstype", "label", "uuid")
        return {
            **dict.fromkeys(names),
            "source": request.source,
            "format": "raw",
            "device": "/dev/loop0",
            "mode": "ro",
            "backend": "loop",
            "mountpoint": str(self._mountpoint),
        }


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """Takes the helper's place."""
    fake = FakeClient(tmp_path)
    monkeypatch.setattr(session_module, "current_client", lambda *_, **__: fake)
    return fake


@pytest.fixture
def disk(tmp_path: Path) -> str:
    """Not looked into: the helper is fake."""
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(512))
    return str(path)


@pytest.mark.parametrize("act", [press_ctrl_c, raise_anyway])
def test_an_interrupt_at_any_line_leaves_nothing(client: FakeClient, disk: str, act: Callable[[], None]) -> None:
    leave_out = () if act is press_ctrl_c else ("signals.py",)
    for at in range(1, 10_000):
        scope = MountSession(Settings(), guarded=True)
        came = False
        try:
            with interrupted(at, act, *leave_out) as interruption:
                with scope.mount(disk) as image:
                    assert image.mounted
                scope.close()
        except KeyboardInterrupt:
            came = True
        assert came == interruption.fired, f"the interrupt at {interruption.place} was lost"
        scope.close()
        assert client.held == set(), interruption.place
        assert LIVE.all() == [], interruption.place
        with MountSession(Settings(), guarded=True) as other:
            other.mount(disk).__enter__()
        assert client.held == set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if not interruption.fired:
            break
    assert at > 100


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_sigterm_while_the_helper_mounts_is_raised_and_the_mount_released(
    client: FakeClient, disk: str, number: signal.Signals
) -> None:
    client.in_open = lambda: os.kill(os.getpid(), number)
    with MountSession(Settings(), guarded=True) as scope:
        with pytest.raises(Terminated):
            scope.mount(disk).__enter__()
    assert client.held == set()
    assert signal.getsignal(number) is signal.SIG_DFL
    LIVE.guard.received = None


def test_every_mount_is_tried_and_the_failed_one_again(client: FakeClient, disk: str) -> None:
    scope = MountSession(Settings(), test="the test")
    for _ in range(3):
        scope.mount(disk).__enter__()
    client.busy = [2]
    with pytest.raises(TeardownError, match="the test") as caught:
        scope.close()
    assert caught.value.failures == ("it is busy",)
    assert client.held == {2}
    assert len(LIVE.all()) == 1
    client.busy = []
    scope.close()
    assert client.held == set()
    assert LIVE.all() == []


def test_two_threads_do_not_enter_one_image_at_once(client: FakeClient, disk: str) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def wait_inside() -> None:
        inside.set()
        go_on.wait(10)

    client.in_open = wait_inside
    with MountSession(Settings()) as scope:
        pending = scope.mount(disk)
        thread = threading.Thread(target=pending.__enter__)
        thread.start()
        assert inside.wait(10)
        with pytest.raises(RequestInvalid, match="open already"):
            pending.__enter__()
        go_on.set()
        thread.join()
        assert pending.thing is not None
        assert client.held == {1}
    assert client.held == set()


def test_a_scope_that_ends_while_a_thread_mounts_takes_that_mount_along(client: FakeClient, disk: str) -> None:
    scope = MountSession(Settings(), test="the test")
    raised: list[BaseException] = []

    def work() -> None:
        try:
            scope.mount(disk).__enter__()
        except RequestInvalid as error:
            raised.append(error)

    def release_overtakes() -> None:
        client.held.remove(1)
        scope.close()
        client.held.add(1)

    client.in_open = release_overtakes
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "the test, has ended" in str(raised[0])
    assert client.released == [1, 1]
    assert client.held == set()
