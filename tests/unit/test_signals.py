"""Deferral and the guard, with real signals in this process."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.signals import Deferred, Guard, Terminated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """The handlers that a program starts with, and afterwards those that were there."""
    before = {number: signal.getsignal(number) for number in NUMBERS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def came() -> list[int]:
    """The signals that came, in order; handlers that note them are set."""
    numbers: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        numbers.append(number)

    for number in NUMBERS:
        signal.signal(number, note)
    return numbers


def exit_of_child(work: Callable[[], None]) -> int:
    """Exit status of a forked child that does ``work``; negative: the signal that ended it; 99: none did."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def send(number: signal.Signals) -> None:
    """From outside of Python's own flow, as another process would."""
    os.kill(os.getpid(), number)


def work_while(*numbers: signal.Signals, done: list[str], fail: bool = False, limit: float = 5) -> None:
    """A deferral during which the signals come, then its work is done, then it may fail."""
    with Deferred(limit):
        for number in numbers:
            send(number)
        done.append("the work")
        if fail:
            raise ValueError("of the block")


def test_signals_wait_for_the_end_of_the_block(came: list[int]) -> None:
    with Deferred():
        for number in NUMBERS:
            send(number)
        assert came == []
    assert sorted(came) == sorted(NUMBERS)


def test_a_signal_that_came_three_times_is_raised_once(came: list[int]) -> None:
    with Deferred():
        for _ in range(3):
            send(signal.SIGINT)
    assert came == [signal.SIGINT]


def test_ctrl_c_is_raised_after_the_block() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        work_while(signal.SIGINT, done=done)
    assert done == ["the work"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_that_raises_does_not_lose_the_other_signal(came: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for first, second in ((signal.SIGINT, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT)):
        came.clear()
        with pytest.raises(KeyboardInterrupt):
            work_while(first, second, done=[])
        assert came == [signal.SIGTERM]


def test_an_error_of_the_block_is_the_context_of_the_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        work_while(signal.SIGINT, done=[], fail=True)
    assert isinstance(caught.value.__context__, ValueError)


def test_a_block_in_a_block_waits_for_the_outer_one(came: list[int]) -> None:
    with Deferred():
        with Deferred():
            send(signal.SIGTERM)
        assert came == []
    assert came == [signal.SIGTERM]


def test_a_default_sigterm_ends_the_process_after_the_block() -> None:
    reading, writing = os.pipe()

    def work() -> None:
        with Deferred():
            send(signal.SIGTERM)
            os.write(writing, b"the work was done")

    assert exit_of_child(work) == -signal.SIGTERM
    assert os.read(reading, 100) == b"the work was done"
    os.close(reading)
    os.close(writing)


def test_after_the_limit_signals_get_through() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        work_while(signal.SIGINT, done=done, limit=0)
    assert done == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Deferred():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        send(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_thread_defers_nothing() -> None:
    seen = []

    def work() -> None:
        with Deferred():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


@pytest.mark.parametrize("at", range(1, 13))
def test_an_interrupt_while_handlers_are_set_or_set_back_does_no_lasting_harm(
    at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes before the ``at``-th look at, or change of, a handler."""
    calls = 0
    for name in ("getsignal", "signal"):
        original = getattr(signal, name)

        def counted(*arguments: object, original: Callable[..., object] = original) -> object:
            nonlocal calls
            calls += 1
            if calls == at:
                send(signal.SIGINT)
            return original(*arguments)

        monkeypatch.setattr(signal, name, counted)
    interrupted = False
    try:
        with Deferred():
            pass
    except KeyboardInterrupt:
        interrupted = True
    monkeypatch.undo()
    assert interrupted or calls < at
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        with Deferred():
            send(signal.SIGINT)
    assert exit_of_child(lambda: send(signal.SIGTERM)) == -signal.SIGTERM
    guard = Guard()
    guard.raise_up()
    with pytest.raises(Terminated):
        send(signal.SIGTERM)
    guard.take_down()
    assert exit_of_child(lambda: send(signal.SIGTERM)) == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_guard_raises_an_interrupt_that_names_the_signal(number: signal.Signals) -> None:
    guard = Guard()
    guard.raise_up()
    with pytest.raises(KeyboardInterrupt, match=number.name) as caught:
        send(number)
    assert type(caught.value) is Terminated
    assert guard.received == number
    guard.take_down()
    assert signal.getsignal(number) is signal.SIG_DFL
    assert exit_of_child(guard.end_as_told) == 99  # the child was not told to end
    guard.received = number
    end_in_child = guard.end_as_told
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        guard.received = number
        os.write(writing, b"x")
        end_in_child()
        os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -number
    assert os.read(reading, 1) == b"x"
    os.close(reading)
    os.close(writing)


def test_the_guard_is_set_and_taken_down_within_a_deferral() -> None:
    guard = Guard()
    with Deferred():
        guard.raise_up()
    with pytest.raises(Terminated):
        send(signal.SIGTERM)
    with pytest.raises(Terminated):
        with Deferred():
            send(signal.SIGTERM)
    with Deferred():
        guard.take_down()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == [signal.SIG_DFL] * 2


def test_the_guard_leaves_the_handlers_of_others(came: list[int]) -> None:
    before = [signal.getsignal(number) for number in NUMBERS]
    guard = Guard()
    guard.raise_up()
    assert [signal.getsignal(number) for number in NUMBERS] == before
    guard.take_down()
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_the_guard_takes_only_its_own_handlers_down() -> None:
    guard = Guard()
    guard.raise_up()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    guard.take_down()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL


def test_a_child_that_is_forked_has_the_default_handlers() -> None:
    guard = Guard()
    guard.raise_up()
    for number in (signal.SIGTERM, signal.SIGHUP):
        assert exit_of_child(lambda number=number: send(number)) == -number  # type: ignore[misc]
    guard.take_down()


def test_a_signal_in_the_first_instructions_of_a_child_is_not_lost() -> None:
    guard = Guard()
    guard.raise_up()
    for _ in range(50):
        child = os.fork()
        if child == 0:
            time.sleep(10)
            os._exit(99)
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    guard.take_down()


def test_a_guard_that_a_thread_took_down_acts_as_the_default() -> None:
    guard = Guard()
    guard.raise_up()
    thread = threading.Thread(target=guard.take_down)
    thread.start()
    thread.join()
    handler: object = signal.getsignal(signal.SIGTERM)
    assert handler is guard
    assert exit_of_child(lambda: send(signal.SIGTERM)) == -signal.SIGTERM
    guard.raise_up()
    with pytest.raises(Terminated):
        send(signal.SIGTERM)
    guard.take_down()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
