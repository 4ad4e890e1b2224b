"""The functions for programs without pytest: they take what the fixtures take, and pass all of it on."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount import attach_image, mount_image, mount_system
from pytest_imagemount.session import MountSession

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS = [(mount_image, "mount"), (mount_system, "mount_system"), (attach_image, "attach")]


@pytest.mark.parametrize(("function", "method"), PAIRS, ids=lambda one: one if isinstance(one, str) else "")
def test_a_function_takes_what_its_fixture_takes(
    function: Callable[..., Any], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = inspect.signature(getattr(MountSession, method))
    parameters = inspect.signature(function).parameters
    assert list(parameters.values()) == list(expected.parameters.values())[1:]

    def record(*given: Any, **named: Any) -> dict[str, Any]:
        return dict(expected.bind(*given, **named).arguments)

    monkeypatch.setattr(MountSession, method, record)
    values = {name: object() for name in parameters}
    given = function(**values)
    assert isinstance(given.pop("self"), MountSession)
    assert given == values
