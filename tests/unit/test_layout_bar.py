from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_imagemount.engine.reader import Window
from pytest_imagemount.layout_bar import Segment, cells, draw_bar, layout
from pytest_imagemount.terminal import Style

ASCII = Style(colour=False, unicode=False)
BLOCKS = Style(colour=False, unicode=True)
COLOURS = Style(colour=True, unicode=True)


def test_a_bar_shows_the_share_of_each_partition() -> None:
    places = [(1, Window(0, 25)), (2, Window(25, 50))]
    assert draw_bar(100, places, ASCII, 40) == ["#" * 10 + "=" * 20 + "." * 10, "    1" + " " * 14 + "2"]
    assert draw_bar(100, places, BLOCKS, 40)[0] == "█" * 10 + "▓" * 20 + "░" * 10


def test_colours_are_around_each_run_and_not_in_the_numbers() -> None:
    bar, numbers = draw_bar(100, [(1, Window(0, 50)), (2, Window(50, 50))], COLOURS, 4)
    assert bar == "\x1b[34m██\x1b[0m\x1b[32m▓▓\x1b[0m"
    assert numbers == "1 2"


def test_a_tiny_partition_has_a_column() -> None:
    places = [(1, Window(0, 1)), (2, Window(1, 1)), (3, Window(2, 1 << 40))]
    assert draw_bar((1 << 40) + 2, places, ASCII, 10) == ["#=########", "1    3"]


def test_free_space_too_small_to_see_is_not_shown() -> None:
    assert draw_bar(1000, [(1, Window(10, 980))], ASCII, 20)[0] == "#" * 20


def test_without_partitions_there_is_no_bar() -> None:
    assert draw_bar(100, [], ASCII) == []
    assert draw_bar(100, [(1, Window(5, 0))], ASCII) == []
    assert draw_bar(0, [], ASCII) == []


def test_of_two_that_overlap_the_smaller_one_is_shown_above_the_other() -> None:
    assert layout(100, [(1, Window(0, 100)), (2, Window(20, 30))]) == [Segment(1, 20), Segment(2, 30), Segment(1, 50)]
    bar, numbers = draw_bar(100, [(1, Window(0, 100)), (2, Window(20, 30))], ASCII, 10)
    assert bar == "##===#####"
    assert numbers.split() == ["1", "2"]


def test_more_partitions_than_columns_are_drawn_by_what_is_in_the_middle_of_each() -> None:
    places = [(number, Window(number * 10, 10)) for number in range(255)]
    bar, numbers = draw_bar(2550, places, ASCII, 76)
    assert len(bar) == 76
    assert len(numbers) <= 76


WINDOWS = st.builds(Window, st.integers(0, 1 << 44), st.integers(0, 1 << 44))


@given(st.lists(WINDOWS, max_size=255), st.integers(1, 1 << 44), st.integers(1, 120))
@settings(max_examples=100, deadline=5000)
def test_any_layout_fills_the_width_and_shows_each_that_it_can(windows: list[Window], size: int, width: int) -> None:
    places = [(number, window) for number, window in enumerate(windows, start=1) if window.end <= size]
    segments = layout(size, places)
    assert sum(segment.size for segment in segments) == size
    owners = cells(segments, width)
    assert len(owners) == width
    if len(segments) <= width:
        assert set(owners) >= {segment.owner for segment in segments} - {None}
    if drawn := draw_bar(size, places, ASCII, width):
        assert len(drawn[0]) == width
        assert len(drawn[1]) <= width


@pytest.mark.parametrize("total", [3, 10**18])
def test_rounding_never_adds_or_drops_a_column(total: int) -> None:
    segments = [Segment(number, total) for number in range(1, 8)]
    assert len(cells(segments, 76)) == 76
    assert {cells(segments, 76).count(number) for number in range(1, 8)} <= {10, 11}
