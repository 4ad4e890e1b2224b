"""The fixture itself, not something like it: work done inside a test of a real pytest run that loads the plugin."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_imagemount.plugin import MountFactory

_TEST = Path(__file__).with_name("measured_test.py")


class _Work:
    """A pytest plugin: the fixture ``work``, which the one test calls."""

    def __init__(self, work: Callable[[MountFactory], object]) -> None:
        self._work = work
        self.done = False
        self.error: BaseException | None = None

    @pytest.fixture
    def work(self) -> Callable[[MountFactory], None]:
        def call(mount: MountFactory) -> None:
            try:
                self._work(mount)
                self.done = True
            except BaseException as error:
                self.error = error
                raise

        return call


def inside_a_test(work: Callable[[MountFactory], object]) -> None:
    """Call ``work`` with the ``mounted_image`` of a running test.

    :raises BaseException: what ``work`` raised; RuntimeError where pytest did not get as far, or its teardown failed
    """
    plugin = _Work(work)
    output = io.StringIO()
    arguments = ["-c", os.devnull, "--rootdir", str(_TEST.parent), "-p", "no:cacheprovider", "-s", str(_TEST)]
    with contextlib.redirect_stdout(output):
        status = pytest.main(arguments, plugins=[plugin])
    if plugin.error is not None:
        raise plugin.error
    if status or not plugin.done:
        raise RuntimeError(f"pytest ended with status {status}:\n{output.getvalue()}")
