"""The client against a helper that the test plays: whose answer is whose, and what becomes of descriptors."""

from __future__ import annotations

import errno
import os
import pwd
import socket
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from pytest_imagemount import capabilities, probes
from pytest_imagemount import client as client_module
from pytest_imagemount.client import Client
from pytest_imagemount.config import Settings
from pytest_imagemount.confined import Change
from pytest_imagemount.engine.undo import wait_until
from pytest_imagemount.errors import CapabilityMissing, HelperLost, ImageInvalid, TeardownError
from pytest_imagemount.helper import messages, protocol
from pytest_imagemount.helper.protocol import ChangeInside, OpenInside, Status
from pytest_imagemount.helper_start import start_helper
from pytest_imagemount.image_root import LocalOpener
from pytest_imagemount.pending import LIVE
from pytest_imagemount.remote_opener import RemoteOpener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Answer = Callable[[socket.socket, dict[str, Any]], None]

FILE = OpenInside(1, "/etc/shadow", os.O_RDONLY, 0)


class Played:
    """The helper's end of the socket: each request is answered by what ``answer`` does."""

    def __init__(self, channel: socket.socket) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer: Answer = lambda channel, request: messages.send(channel, {"sequence": request["sequence"]})
        self.farewell: dict[str, Any] | None = {protocol.FAREWELL: [], "kept": False}
        self._channel = channel
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._channel:
            while (request := messages.receive(self._channel)[0]) is not None:
                self.requests.append(request)
                if request["operation"] == "configure":
                    messages.send(self._channel, {"pid": 4711, "sequence": request["sequence"]})
                else:
                    self.answer(self._channel, request)
            if self.farewell is not None:
                with suppress(OSError):  # nobody waits for it
                    messages.send(self._channel, self.farewell)

    def end(self) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Client, Played]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    helper = Played(theirs)
    process = subprocess.Popen(["true"])
    monkeypatch.setattr(client_module, "start_helper", lambda sudo, output: (process, ours))
    client = Client(Settings())
    yield client, helper
    ours.close()
    client._output.close()
    helper.end()
    process.wait()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def file_with(text: str) -> int:
    with tempfile.TemporaryFile() as file:
        file.write(text.encode())
        file.flush()
        file.seek(0)
        return os.dup(file.fileno())


def send_file(channel: socket.socket, sequence: int | None, text: str) -> None:
    fd = file_with(text)
    messages.send(channel, {"opened": 1, "sequence": sequence}, (fd,))
    os.close(fd)


def test_a_stale_answer_is_dropped_with_its_descriptor(played: tuple[Client, Played]) -> None:
    client, helper = played

    def answer(channel: socket.socket, request: dict[str, Any]) -> None:
        for sequence in (request["sequence"] - 1, None, request["sequence"] + 7, request["sequence"]):
            send_file(channel, sequence, f"for {sequence}")

    helper.answer = answer
    before = open_files()
    fd = client.ask_for_file(FILE)
    assert os.read(fd, 100).decode() == f"for {helper.requests[-1]['sequence']}"
    os.close(fd)
    assert wait_until(lambda: open_files() == before, 5)  # the other end closes its own a moment later


def test_descriptors_reach_the_thread_that_asked(played: tuple[Client, Played]) -> None:
    client, helper = played
    helper.answer = lambda channel, request: send_file(channel, request["sequence"], request["path"])
    wrong: list[str] = []

    def ask(name: str) -> None:
        for number in range(50):
            fd = client.ask_for_file(OpenInside(1, f"{name}{number}", os.O_RDONLY, 0))
            if (read := os.read(fd, 100).decode()) != f"{name}{number}":
                wrong.append(f"{name}{number}: {read}")
            os.close(fd)

    before = open_files()
    threads = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert wait_until(lambda: open_files() == before, 5)  # the other end closes its own a moment later


def test_a_request_in_the_middle_of_another_takes_nothing_away(
    played: tuple[Client, Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a signal handler that tears down while the main program waits for an answer."""
    client, _ = played
    original = messages.receive
    nested: list[int | None] = []

    def receive(channel: socket.socket, **options: Any) -> Any:
        if channel is client._channel and not nested:
            nested.append(None)
            nested.append(client.ask(Status())["sequence"])
        return original(channel, **options)

    monkeypatch.setattr(messages, "receive", receive)
    assert client.ask(Status())["sequence"] == 2
    assert nested == [None, 3]


def test_a_descriptor_that_nobody_asked_for_is_closed(played: tuple[Client, Played]) -> None:
    client, helper = played
    helper.answer = lambda channel, request: send_file(channel, request["sequence"], "")
    before = open_files()
    assert client.ask(Status())["opened"] == 1
    assert wait_until(lambda: open_files() == before, 5)  # the other end closes its own a moment later


def test_an_answer_without_the_file_is_an_error(played: tuple[Client, Played]) -> None:
    client, _ = played
    with pytest.raises(HelperLost, match="0 descriptors"):
        client.ask_for_file(FILE)


def test_an_errno_comes_as_the_builtin_error(played: tuple[Client, Played]) -> None:
    client, helper = played
    answer = {"errno": errno.ENOTEMPTY}
    helper.answer = lambda channel, request: messages.send(channel, {**answer, "sequence": request["sequence"]})
    with pytest.raises(OSError) as caught:
        client.ask(ChangeInside(1, "rmdir", "/etc", "", 0))
    assert caught.value.errno == errno.ENOTEMPTY


def test_an_error_comes_as_what_it_was(played: tuple[Client, Played]) -> None:
    client, helper = played
    error = ImageInvalid(image="disk", reason="bad", hint="see").to_wire()
    helper.answer = lambda channel, request: messages.send(channel, {"error": error, "sequence": request["sequence"]})
    with pytest.raises(ImageInvalid, match="bad"):
        client.ask(Status())


@pytest.mark.parametrize("farewell", [None, {protocol.FAREWELL: [], "kept": False}])
def test_a_helper_that_ends_is_lost(played: tuple[Client, Played], farewell: dict[str, Any] | None) -> None:
    client, helper = played

    def end(channel: socket.socket, _: dict[str, Any]) -> None:
        if farewell is not None:
            messages.send(channel, farewell)
        channel.shutdown(socket.SHUT_RDWR)

    helper.answer, helper.farewell = end, None
    with pytest.raises(HelperLost, match="SIGTERM" if farewell else "closed the connection"):
        client.ask(Status())
    with pytest.raises(HelperLost):
        client.close()


def test_what_a_test_raised_is_shown_behind_the_loss_of_the_helper(played: tuple[Client, Played]) -> None:
    client, helper = played
    helper.answer, helper.farewell = lambda channel, _: channel.shutdown(socket.SHUT_RDWR), None
    fault = ValueError("the test's own")
    for action in (lambda: client.ask(Status()), client.close):
        with pytest.raises(HelperLost) as caught:  # noqa: PT012 - what is raised while an error is under way
            try:
                raise fault
            except ValueError:
                action()
        assert caught.value.__context__ is fault
        assert not caught.value.__suppress_context__


def test_what_is_left_behind_is_raised_at_the_end(played: tuple[Client, Played]) -> None:
    client, helper = played
    helper.farewell = {protocol.FAREWELL: ["unmount /x: busy"], "kept": False}
    with pytest.raises(TeardownError) as caught:
        client.close()
    assert caught.value.failures == ("unmount /x: busy",)


def test_a_helper_that_keeps_something_is_not_waited_for(
    played: tuple[Client, Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, helper = played
    helper.farewell = {protocol.FAREWELL: [], "kept": True}
    monkeypatch.setattr(client._process, "wait", lambda *_: pytest.fail("waited"))
    client.close()
    monkeypatch.undo()


def test_a_forked_child_closes_its_copies_and_the_helper_hears_nothing(played: tuple[Client, Played]) -> None:
    client, helper = played
    before = open_files()
    child = os.fork()
    if not child:
        client.close()
        os._exit(0 if open_files() == before - 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    client.ask(Status())
    assert [request["operation"] for request in helper.requests] == ["configure", "status"]


def test_only_what_is_refused_here_is_asked_of_the_helper(played: tuple[Client, Played], tmp_path: Path) -> None:
    client, helper = played
    helper.answer = lambda channel, request: send_file(channel, request["sequence"], "by root")
    (tmp_path / "plain").write_text("by us")

    class Refusing(LocalOpener):
        def open(self, path: str, flags: int, mode: int = 0) -> int:
            if path.startswith("/closed"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return super().open(path, flags, mode)

    opener = RemoteOpener(Refusing(tmp_path), client, 5)
    for path, expected in (("/plain", b"by us"), ("/closed/key", b"by root")):
        fd = opener.open(path, os.O_RDONLY)
        assert os.read(fd, 100) == expected
        os.close(fd)
    with pytest.raises(FileNotFoundError):
        opener.open("/none", os.O_RDONLY)
    umask = os.umask(0o027)
    try:
        opener.change(Change("mkdir", "/closed/new", mode=0o777))
        opener.change(Change("chmod", "/closed/new", mode=0o100777))
    finally:
        os.umask(umask)
    opener.change(Change("mkdir", "/here", mode=0o700))
    opener.close()
    assert (tmp_path / "here").is_dir()
    asked = [{**request, "sequence": None} for request in helper.requests[1:]]
    common = {"mount": 5, "other": "", "sequence": None, "operation": "change-inside", "path": "/closed/new"}
    assert asked == [
        {"operation": "open-inside", "mount": 5, "path": "/closed/key", "flags": 0, "mode": 0, "sequence": None},
        {**common, "call": "mkdir", "mode": 0o750},
        {**common, "call": "chmod", "mode": 0o777},
    ]
    with pytest.raises(OSError) as caught:
        opener.open("/plain", os.O_RDONLY)
    assert caught.value.errno == errno.EBADF


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("lock", [lambda: client_module._current_lock, lambda: LIVE._lock], ids=["client", "live"])
def test_a_child_that_is_forked_while_a_thread_is_at_work_does_not_wait_for_it(
    lock: Callable[[], Any],
) -> None:
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock():
            held.set()
            let_go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        os._exit(0 if lock().acquire(blocking=False) else 1)
    let_go.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_a_user_whom_the_machine_does_not_know_is_told_that_sudo_serves_no_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(uid: int) -> NoReturn:
        raise KeyError(uid)

    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(capabilities, "capabilities", lambda: None)  # which would remember this user
    monkeypatch.setattr(probes, "sudo_usable", lambda here: "sudo is not installed")
    with tempfile.TemporaryFile() as output, pytest.raises(CapabilityMissing) as caught:
        start_helper("auto", output)
    assert "give this user a line in /etc/passwd" in caught.value.hint
    assert "sudoers" not in caught.value.hint
