"""How progress shows: a bar where lines can be redrawn, a few lines elsewhere, nothing for what is soon done."""

from __future__ import annotations

import time

import pytest

from pytest_imagemount.progress import Progress


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_bar_is_redrawn_and_wiped(clock: Clock) -> None:
    told: list[str] = []
    drawn: list[str] = []
    progress = Progress("unpacking a\x1bb", 1 << 30, told.append, drawn.append)
    progress.at(1 << 20)
    clock.now += 1
    progress.at(1 << 28)
    progress.at(1 << 29)
    clock.now += 1
    progress.at(1 << 29)
    progress.end()
    assert told == []
    assert drawn == [
        r"imagemount: unpacking a\x1bb [######------------------]  25 % of 1 GiB, 3 s left",
        r"imagemount: unpacking a\x1bb [############------------]  50 % of 1 GiB, 2 s left",
        "",
    ]


def test_without_a_terminal_it_is_a_line_now_and_then(clock: Clock) -> None:
    told: list[str] = []
    progress = Progress("unpacking a", 4096, told.append)
    for _ in range(20):
        clock.now += 1
        progress.at(2048)
    progress.end()
    assert told == [
        "imagemount: unpacking a: 50 % of 4 KiB",
        "imagemount: unpacking a: 50 % of 4 KiB",
        "imagemount: unpacking a: over after 20 s",
    ]


def test_what_is_soon_done_shows_nothing(clock: Clock) -> None:
    shown: list[str] = []
    for draw in (shown.append, None):
        progress = Progress("unpacking a", 0, shown.append, draw)
        clock.now += 0.4
        progress.at(0)
        progress.end()
    assert shown == []
