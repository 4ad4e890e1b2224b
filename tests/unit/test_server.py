"""The helper as a process of its own, told anything: an error for an answer, never a crash, no descriptor kept."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import subprocess
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pytest_imagemount
from pytest_imagemount.engine.folders import served_folder
from pytest_imagemount.errors import RequestInvalid, from_wire
from pytest_imagemount.helper import messages, protocol
from pytest_imagemount.helper.server import Server
from pytest_imagemount.helper_start import helper_argv

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_imagemount.helper.service import Service

_SECONDS = 10.0
CONFIGURE = {"operation": "configure", "version": protocol.VERSION, "worker": "", "nbd_devices": 16, "nbd_start": 0}


class Helper:
    """A helper that serves this process, with the privilege of this process, and the socket to it."""

    def __init__(self, folder: Path, **environment: str) -> None:
        path = folder / "socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(str(path))
            listener.listen()
            self.process = subprocess.Popen(
                helper_argv(path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **environment}
            )
            listener.settimeout(_SECONDS)
            self.channel, _ = listener.accept()
        path.unlink()
        self.channel.settimeout(_SECONDS)

    def say(self, data: bytes, descriptors: tuple[int, ...] = ()) -> None:
        socket.send_fds(self.channel, [data], descriptors)

    def hear(self) -> dict[str, Any]:
        message, descriptors = messages.receive(self.channel)
        messages.close_all(descriptors)
        assert message is not None, "it has ended"
        return message

    def ask(self, **message: Any) -> dict[str, Any]:
        self.say(json.dumps(message).encode())
        return self.hear()

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def end(self) -> tuple[int, str]:
        """Exit status and output, once it has ended."""
        output, _ = self.process.communicate(timeout=_SECONDS)
        return self.process.returncode, output.decode()

    def close(self) -> None:
        self.channel.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.end()
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def helper(tmp_path: Path) -> Iterator[Helper]:
    started = Helper(tmp_path)
    yield started
    started.close()


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Helper]:
    """One helper for many questions, configured."""
    started = Helper(tmp_path_factory.mktemp("helper"))
    assert started.ask(**CONFIGURE, sequence=0)["pid"] == started.process.pid
    yield started
    assert started.ask(operation="status", sequence=1) == {"mounts": [], "sequence": 1}
    started.channel.shutdown(socket.SHUT_WR)
    assert started.hear() == {protocol.FAREWELL: [], "kept": False}
    assert started.end() == (0, "")
    started.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def _requests(draw: st.DrawFn) -> dict[str, Any]:
    """What is nearly a request: the fields of one, with values of any kind."""
    operation = draw(st.sampled_from([*protocol._KINDS, "run", None]))
    kind = protocol._KINDS.get(operation or "")
    names = [field.name for field in fields(kind)] if kind else []
    # Nothing that a request of the right form would change on this machine.
    names = [name for name in names if name != "dry_run"]
    values = st.integers() | st.sampled_from([0, 1, -1, 1 << 64, "", "raw", "/etc/passwd", "a\0b", "\ud800", [], True])
    message = {name: draw(values | JSON) for name in names if draw(st.integers(0, 9))}
    return {"operation": operation, "sequence": draw(st.integers() | JSON), **message}


def _told(helper: Helper, data: bytes, descriptors: tuple[int, ...] = ()) -> dict[str, Any]:
    before = helper.descriptors()
    helper.say(data, descriptors)
    reply = helper.hear()
    # It answers first, and closes then what came with the question, or was sent with the answer.
    helper.ask(operation="status", sequence=1)
    assert helper.process.poll() is None
    assert helper.descriptors() == before
    return reply


@settings(deadline=None, max_examples=150)
@given(data=st.binary(min_size=1, max_size=300))
def test_any_bytes_get_an_error(patient: Helper, data: bytes) -> None:
    assert "error" in _told(patient, data)


@settings(deadline=None, max_examples=150)
@given(value=JSON)
def test_any_json_gets_an_error(patient: Helper, value: Any) -> None:
    assert "error" in _told(patient, json.dumps(value).encode())


@settings(deadline=None, max_examples=400)
@given(message=_requests(), count=st.integers(0, 6))
def test_what_is_nearly_a_request_gets_an_answer(patient: Helper, message: dict[str, Any], count: int) -> None:
    with Path(os.devnull).open("rb") as file:
        reply = _told(patient, json.dumps(message).encode(), (file.fileno(),) * count)
    assert "facts" not in reply
    assert "a fault in the helper" not in json.dumps(reply)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 100_000,
        b'{"sequence":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"operation":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"operation": "release", "mount": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"operation": "release", "mount": 1' + b"0" * 5000 + b"}",
        b'{"operation": "release", "mount": NaN}',
        b'{"x": "' + b"y" * messages.MAX_MESSAGE + b'"}',
        b'{"operation": "open-inside", "mount": 1, "path": "\\ud800", "flags": 0, "mode": 0}',
        b'{"operation": "open-inside", "mount": 1, "path": "\\u0000", "flags": 0, "mode": 0}',
    ],
    ids=lambda data: repr(data[:30]),
)
def test_a_malformed_message_gets_an_error_that_is_no_fault(patient: Helper, data: bytes) -> None:
    reply = _told(patient, data)
    assert reply["error"]["type"] == "RequestInvalid"


def test_as_many_descriptors_as_a_message_can_carry_are_taken(patient: Helper) -> None:
    with Path(os.devnull).open("rb") as file:
        reply = _told(patient, b'{"operation": "status"}', (file.fileno(),) * messages.MAX_DESCRIPTORS)
        assert reply["mounts"] == []
        with pytest.raises(RequestInvalid, match="254 open files"):
            messages.send(patient.channel, {}, (file.fileno(),) * 254)


def test_a_request_for_whose_descriptors_there_is_no_room_gets_its_answer(helper: Helper) -> None:
    helper.ask(**CONFIGURE)
    before = helper.descriptors()
    resource.prlimit(helper.process.pid, resource.RLIMIT_NOFILE, (before + 1, before + 1))
    with Path(os.devnull).open("rb") as file:
        helper.say(b'{"operation": "status", "sequence": 7}', (file.fileno(),) * 3)
    reply = helper.hear()
    assert reply["sequence"] == 7
    assert "ulimit -n" in str(from_wire(reply["error"]))
    assert helper.descriptors() == before
    assert helper.ask(operation="status", sequence=8) == {"mounts": [], "sequence": 8}


def test_it_may_open_as_many_files_as_the_hard_limit_allows(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir()) + 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        helper = Helper(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    helper.ask(**CONFIGURE)
    assert resource.prlimit(helper.process.pid, resource.RLIMIT_NOFILE) == (min(hard % (1 << 64), 1 << 16), hard)
    helper.close()


def test_an_operation_that_would_block_gets_its_answer() -> None:
    """As fork(2) answers where there is no room for another process: EAGAIN, which is BlockingIOError."""

    class Crowded:
        def handle(self, *_: object) -> None:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = Server.__new__(Server)
    server._channel, server._service = theirs, cast("Service", Crowded())
    with ours, theirs:
        ours.settimeout(_SECONDS)
        messages.send(ours, {"operation": "status", "sequence": 3})
        assert server._serve_one()
        reply, _ = messages.receive(ours, wait=False)
    assert reply is not None
    assert reply["sequence"] == 3
    assert "temporarily unavailable" in reply["error"]["args"][0]


@pytest.mark.parametrize("change", [{"version": 0}, {"nbd_devices": 0}, {"nbd_devices": 10**9}, {"nbd_start": -1}])
def test_a_configuration_that_cannot_be_is_refused(helper: Helper, change: dict[str, int]) -> None:
    assert helper.ask(**{**CONFIGURE, **change})["error"]["type"] == "RequestInvalid"
    assert helper.ask(operation="status")["error"]["kwargs"]["reason"] == "configure comes first"


def test_a_client_that_never_speaks_is_waited_for_until_its_end(helper: Helper) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        helper.process.wait(0.3)
    helper.channel.close()
    assert helper.end() == (0, "")


def test_a_client_that_does_not_read_is_given_up(helper: Helper) -> None:
    """As one that is stopped by SIGSTOP: the helper does not hang with it."""
    helper.ask(**CONFIGURE)
    helper.channel.settimeout(0.5)
    # Until the helper ends: then there is nobody to send to, or nobody that takes it.
    with contextlib.suppress(OSError):
        for _ in range(100_000):
            helper.say(b'{"operation": "status", "sequence": 1}')
    assert helper.end() == (0, "")


def test_a_client_that_has_closed_its_ear_is_given_up(helper: Helper) -> None:
    helper.ask(**CONFIGURE)
    helper.channel.shutdown(socket.SHUT_RD)
    helper.say(b'{"operation": "status"}')
    assert helper.end() == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_with_a_farewell(helper: Helper, number: int) -> None:
    helper.ask(**CONFIGURE)
    helper.process.send_signal(signal.SIGINT)  # is for the test process
    assert "mounts" in helper.ask(operation="status")
    helper.process.send_signal(number)
    assert helper.hear() == {protocol.FAREWELL: [], "kept": False}
    assert helper.end() == (0, "")


def test_it_serves_the_user_of_the_socket_whatever_sudo_is_said_to_have_told(tmp_path: Path) -> None:
    helper = Helper(tmp_path, SUDO_UID="12345", SUDO_USER="daemon", USER="daemon")
    helper.ask(**CONFIGURE)
    folders = [path for path in served_folder(os.geteuid()).iterdir() if path.name.startswith(f"{helper.process.pid}-")]
    assert len(folders) == 1
    helper.close()
    assert not folders[0].exists()


def test_a_socket_of_another_user_is_not_served(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        argv = [*helper_argv(path)[:-1], str(os.geteuid() + 1)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 2
    assert f"process {os.getpid()} belongs to user {os.geteuid()}, not {os.geteuid() + 1}" in done.stderr


def test_a_socket_that_is_gone_is_told(tmp_path: Path) -> None:
    done = subprocess.run(helper_argv(tmp_path / "none"), capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 2
    assert "does not listen" in done.stderr


def test_what_lies_beside_the_package_does_not_stand_in_for_the_standard_library(tmp_path: Path) -> None:
    """As the backports ``dataclasses`` and ``typing`` do, which old packages bring along."""
    argv = helper_argv(tmp_path / "none")
    folder = Path(pytest_imagemount.__file__).parent.parent
    beside = tmp_path / "site-packages"
    beside.mkdir()
    (beside / "pytest_imagemount").symlink_to(folder / "pytest_imagemount")
    for name in ("dataclasses", "typing", "json", "enum"):
        (beside / f"{name}.py").write_text("raise ImportError('a backport')\n")
    moved = [str(beside) if word == str(folder) else word for word in argv]
    assert moved != argv
    done = subprocess.run(moved, capture_output=True, text=True, timeout=_SECONDS)
    assert done.returncode == 2
    assert "does not listen" in done.stderr
