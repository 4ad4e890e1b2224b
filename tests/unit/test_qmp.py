"""The QMP client against a peer that plays the daemon from a script."""

from __future__ import annotations

import json
import pickle
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.engine.qemu.qmp import Command, Event, QmpClient, QmpError, QmpLost, QmpTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GREETING = b'{"QMP": {"version": {}, "capabilities": ["oob"]}}\r\n'


class Peer:
    """The daemon's end."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.lines = connection.makefile("rb")

    def asked(self) -> dict[str, Any]:
        """The next command."""
        value: dict[str, Any] = json.loads(self.lines.readline())
        return value

    def say(self, *messages: dict[str, Any]) -> None:
        """Send messages, all at once."""
        self.connection.sendall(b"".join(json.dumps(message).encode() + b"\r\n" for message in messages))


@contextmanager
def talking_to(script: Callable[[Peer], object], ended: threading.Event | None = None) -> Iterator[QmpClient]:
    """A client whose peer runs ``script`` in a thread, hangs up, and then sets ``ended``."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    failures: list[BaseException] = []

    def run() -> None:
        peer = Peer(theirs)
        try:
            script(peer)
        except Exception as error:  # noqa: BLE001 - handed to the test
            failures.append(error)
        finally:
            peer.lines.close()
            theirs.close()
            if ended is not None:
                ended.set()

    thread = threading.Thread(target=run)
    thread.start()
    client = QmpClient(ours, timeout=10)
    try:
        yield client
    finally:
        client.close()
        thread.join()
    assert not failures, failures


def test_negotiation_reads_the_greeting_and_asks_for_no_capabilities() -> None:
    asked = []

    def daemon(peer: Peer) -> None:
        peer.connection.sendall(GREETING)
        asked.append(peer.asked())
        peer.say({"return": {}, "id": asked[0]["id"]})

    with talking_to(daemon) as client:
        client.negotiate()
    assert asked == [{"execute": "qmp_capabilities", "id": 0}]


def test_what_greets_with_something_else_is_not_a_daemon() -> None:
    with talking_to(lambda peer: peer.say({"hello": 1})) as client, pytest.raises(QmpLost, match="which is not QMP"):
        client.negotiate()


def test_a_command_gives_its_answer() -> None:
    def daemon(peer: Peer) -> None:
        asked = peer.asked()
        assert (asked["execute"], asked["arguments"]) == ("block-export-del", {"id": "e", "mode": "hard"})
        peer.say({"return": {"size": 7}, "id": asked["id"]})

    with talking_to(daemon) as client:
        assert client.execute("block-export-del", {"id": "e", "mode": "hard"}) == {"size": 7}


def test_a_refusal_is_an_error_with_the_daemons_words() -> None:
    def daemon(peer: Peer) -> None:
        peer.say({"error": {"class": "GenericError", "desc": "no such node"}, "id": peer.asked()["id"]})

    with talking_to(daemon) as client, pytest.raises(QmpError) as caught:
        client.execute("blockdev-del")
    assert (caught.value.command, caught.value.error_class) == ("blockdev-del", "GenericError")
    assert str(caught.value) == "QMP command 'blockdev-del' refused: no such node (GenericError)"
    assert pickle.loads(pickle.dumps(caught.value)).desc == "no such node"


def test_several_commands_are_written_before_any_answer_is_read() -> None:
    def daemon(peer: Peer) -> None:
        asked = [peer.asked() for _ in range(3)]  # would block here if the client waited for the first answer
        assert [command["execute"] for command in asked] == ["a", "b", "c"]
        peer.say(*({"return": place, "id": command["id"]} for place, command in enumerate(asked)))

    with talking_to(daemon) as client:
        assert client.execute_many([Command("a"), Command("b"), Command("c")]) == [0, 1, 2]


def test_a_refusal_among_several_leaves_the_others_their_answers() -> None:
    def daemon(peer: Peer) -> None:
        first, second, third = (peer.asked()["id"] for _ in range(3))
        peer.say({"return": 1, "id": first}, {"error": {"class": "C", "desc": "d"}, "id": second})
        peer.say({"return": 3, "id": third})

    with talking_to(daemon) as client:
        one, refused, three = client.execute_many([Command("a"), Command("b"), Command("c")])
    assert (one, three) == (1, 3)
    assert isinstance(refused, QmpError)
    assert refused.command == "b"


def test_events_between_answers_are_kept_and_given_once() -> None:
    def daemon(peer: Peer) -> None:
        peer.say({"event": "JOB", "data": {"id": "j"}}, {"event": "RESUME"})
        peer.say({"return": {}, "id": peer.asked()["id"]})

    with talking_to(daemon) as client:
        client.execute("x")
        assert client.wait_event(lambda _: True) == Event("JOB", {"id": "j"})
        assert client.wait_event(lambda _: True) == Event("RESUME", {})
        with pytest.raises((QmpLost, QmpTimeout)):
            client.wait_event(lambda _: True, timeout=0.01)


def test_an_event_that_came_before_the_wait_is_found() -> None:
    def daemon(peer: Peer) -> None:
        peer.say({"event": "OTHER"}, {"event": "DELETED", "data": {"id": "e"}})
        peer.say({"return": {}, "id": peer.asked()["id"]})

    with talking_to(daemon) as client:
        client.execute("x")
        assert client.wait_event(lambda event: event.name == "DELETED").data == {"id": "e"}


def test_an_event_that_does_not_come_is_a_timeout() -> None:
    release = threading.Event()
    with talking_to(lambda peer: release.wait(10)) as client:
        with pytest.raises(QmpTimeout):
            client.wait_event(lambda event: True, timeout=0.01)
        release.set()


def test_the_late_answer_to_a_command_that_was_given_up_is_not_taken_for_the_next() -> None:
    gave_up = threading.Event()

    def daemon(peer: Peer) -> None:
        slow = peer.asked()["id"]
        gave_up.wait(10)
        peer.say({"return": "late", "id": slow}, {"return": "right", "id": peer.asked()["id"]})

    with talking_to(daemon) as client:
        with pytest.raises(QmpTimeout, match="did not answer in time"):
            client.execute("slow", timeout=0.01)
        gave_up.set()
        assert client.execute("next") == "right"


def test_an_answer_may_come_in_pieces() -> None:
    def daemon(peer: Peer) -> None:
        answer = json.dumps({"return": "x" * 100_000, "id": peer.asked()["id"]}).encode() + b"\r\n"
        for place in range(0, len(answer), 7001):
            peer.connection.sendall(answer[place : place + 7001])

    with talking_to(daemon) as client:
        assert client.execute("big") == "x" * 100_000


def test_a_daemon_that_hangs_up_is_lost() -> None:
    with talking_to(lambda peer: peer.asked()) as client, pytest.raises(QmpLost, match="closed"):
        client.execute("x")


def test_a_command_to_a_daemon_that_is_gone_is_lost() -> None:
    hung_up = threading.Event()
    with talking_to(lambda peer: None, ended=hung_up) as client:
        assert hung_up.wait(10)
        with pytest.raises(QmpLost, match="closed"):
            client.execute("x")


@pytest.mark.parametrize("line", [b"not json\r\n", b"[1]\r\n", b"\xff\xfe\r\n"])
def test_what_is_not_qmp_is_told(line: bytes) -> None:
    with talking_to(lambda peer: peer.connection.sendall(line)) as client, pytest.raises(QmpLost, match="not QMP"):
        client.negotiate()


def test_a_line_without_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_imagemount.engine.qemu.qmp._MAX_LINE", 1000)
    with talking_to(lambda peer: peer.connection.sendall(b"x" * 2000)) as client, pytest.raises(QmpLost, match="1000"):
        client.negotiate()
