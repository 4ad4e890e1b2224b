"""System tests use the real kernel: after each one, nothing may be left."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine import folders
from pytest_imagemount.engine.undo import wait_until
from pytest_imagemount.helper.reclaim import reclaim
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


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which the helpers of one test have theirs; at the end nothing may be in it."""
    path = Path(tempfile.mkdtemp(prefix="imagemount-test-", dir="/run"))
    monkeypatch.setattr(folders, "base_folder", lambda: path)
    yield path
    reclaim(path, dry_run=False)
    left = [str(entry) for entry in path.glob("*/*")]
    for user in path.iterdir():
        user.rmdir()
    path.rmdir()
    assert left == []
