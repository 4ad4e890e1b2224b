from __future__ import annotations

import pytest

from pytest_imagemount.engine.undo import UndoStack, wait_until
from pytest_imagemount.errors import TeardownError


def recorder(log: list[str], name: str, failures: list[OSError] | None = None) -> object:
    def step() -> None:
        log.append(name)
        if failures:
            raise failures.pop()

    return step


def test_steps_run_in_reverse_order_and_once() -> None:
    log: list[str] = []
    undo = UndoStack()
    for name in ("first", "second", "third"):
        undo.push(name, recorder(log, name))  # type: ignore[arg-type]
    assert undo.run() == []
    assert log == ["third", "second", "first"]
    assert not undo
    undo.run()
    assert len(log) == 3


@pytest.mark.parametrize("failing", ["first", "second", "third"])
def test_a_failed_step_does_not_keep_the_others_and_is_tried_again(failing: str) -> None:
    log: list[str] = []
    undo = UndoStack()
    for name in ("first", "second", "third"):
        failures = [OSError(16, "busy")] if name == failing else []
        undo.push(name, recorder(log, name, failures))  # type: ignore[arg-type]
    with pytest.raises(TeardownError, match=f"(?s)the lot.*{failing}: .*busy"):
        undo.close("the lot")
    assert log == ["third", "second", "first"]
    undo.close("the lot")
    assert log == ["third", "second", "first", failing]


def test_an_error_that_is_a_fault_of_the_program_is_not_swallowed() -> None:
    undo = UndoStack()
    undo.push("wrong", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        undo.run()


def test_waiting_ends_when_the_condition_holds_or_the_time_is_up() -> None:
    answers = [True, False, False]
    assert wait_until(lambda: answers.pop(), 60)
    assert answers == []
    assert not wait_until(lambda: False, 0.01)
