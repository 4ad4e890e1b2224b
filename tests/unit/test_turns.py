from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.nbd.turns import Line

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def line(tmp_path: Path) -> Line:
    return Line(tmp_path / "line")


def test_those_who_came_first_are_ahead(line: Line) -> None:
    places = [line.join() for _ in range(4)]
    assert [line.ahead(place) for place in places] == [0, 1, 2, 3]
    assert line.ahead(None) == 4
    places[1].leave()
    assert [line.ahead(places[number]) for number in (0, 2, 3)] == [0, 1, 2]


def test_a_place_that_is_left_twice_is_left_once(line: Line, tmp_path: Path) -> None:
    place = line.join()
    place.leave()
    place.leave()
    assert line.ahead(None) == 0
    assert list((tmp_path / "line").iterdir()) == []


def test_the_place_of_a_killed_process_is_nobodys(line: Line, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from pytest_imagemount.engine.nbd.turns import Line\n"
        "place = Line(Path(sys.argv[1])).join(); print('waits', flush=True); sys.stdin.read()"
    )
    folder = tmp_path / "line"
    with subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waits\n"
        mine = line.join()
        assert line.ahead(mine) == 1
        process.kill()
        process.wait()
    assert line.ahead(mine) == 0
    assert [path.name for path in folder.iterdir()] == [mine.path.name]
    mine.leave()


@pytest.mark.parametrize("seconds", [-6, 3600], ids=["long ago", "before the clock was set back"])
def test_who_does_not_ask_any_more_is_passed_over_until_he_does(line: Line, seconds: int) -> None:
    stopped, other = line.join(), line.join()
    assert line.ahead(other) == 1
    os.utime(stopped.fd, times=(time.time() + seconds, time.time() + seconds))
    assert line.ahead(other) == 0
    assert line.ahead(stopped) == 0
    assert line.ahead(other) == 1
    stopped.leave()
    other.leave()
