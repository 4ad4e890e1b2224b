"""How often somebody who waits asks, and what is told."""

from __future__ import annotations

import pytest

from pytest_imagemount import waiting
from pytest_imagemount.errors import DeviceTimeout
from pytest_imagemount.waiting import Wait


class _Clock:
    """A clock that only sleeping, and :attr:`now`, moves on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 4))
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(waiting, "time", clock)
    return clock


def _ask(clock: _Clock, times: int, *, question: float, ahead: int = 0, timeout: float = 60) -> list[str]:
    told: list[str] = []
    wait = Wait("disk.img", timeout, told.append)
    for _ in range(times):
        clock.now += question
        wait.pause("device", ["nbd0: pid 7"], ahead)
    return told


def test_who_waits_asks_soon_and_then_less_often(clock: _Clock) -> None:
    _ask(clock, 5, question=0.0004)
    assert clock.slept == [0.005, 0.01, 0.02, 0.02, 0.02]


def test_who_waits_asks_less_often_where_a_question_takes_long(clock: _Clock) -> None:
    _ask(clock, 3, question=0.004)
    assert clock.slept == [0.04, 0.04, 0.04]


def test_who_stands_further_back_asks_less_often(clock: _Clock) -> None:
    _ask(clock, 2, question=0.004, ahead=2)
    assert clock.slept == [0.12, 0.12]


@pytest.mark.parametrize(("ahead", "longest"), [(0, 0.06), (5, 0.36), (60, 0.5)])
def test_one_slow_answer_does_not_make_a_long_pause(clock: _Clock, ahead: int, longest: float) -> None:
    _ask(clock, 1, question=3.0, ahead=ahead)
    assert clock.slept == [longest]


def test_no_pause_goes_beyond_the_deadline(clock: _Clock) -> None:
    with pytest.raises(DeviceTimeout, match="after 1 s, 4 in line before it; held by:\n  nbd0: pid 7"):
        _ask(clock, 100, question=0.004, ahead=4, timeout=1)
    assert clock.now == pytest.approx(1001, abs=0.01)


@pytest.mark.parametrize(("ahead", "place"), [(0, ""), (3, ", 3 in line before it")])
def test_the_user_is_told_once_who_holds_what(clock: _Clock, ahead: int, place: str) -> None:
    told = _ask(clock, 300, question=0.004, ahead=ahead)
    assert told == [f"imagemount: disk.img waits for an NBD device{place}; held by nbd0: pid 7"]
