"""System tests use the real kernel: after each one, nothing may be left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.undo import wait_until
from tests.leaks import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    """Fails the test that leaves a mount, a device, a mapping, a lock or a process."""
    before = snapshot(own_processes=False)
    yield
    wait_until(lambda: snapshot(own_processes=False) <= before, 2)
    left = snapshot(own_processes=False) - before
    assert not left, "left behind:\n  " + "\n  ".join(sorted(left))
