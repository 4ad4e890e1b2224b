"""``--imagemount-keep``: what a failed test had mounted is left for a person to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from _pytest.nodes import Node

    from .mounted_image import BlockDevice, MountedImage

_FAILED = pytest.StashKey[bool]()


class KeepFailed:
    """Registered where ``keep`` is set: marks a test that failed, and every scope that it is in."""

    tearing_down = False
    """Whether finalizers of a test are running now."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Outermost, so that the outcome is final: xfail and its like have had their say."""
        report = yield
        if report.failed:
            for node in item.listchain():
                node.stash[_FAILED] = True
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        """Around the finalizers of the test, and of the scopes that end with it."""
        KeepFailed.tearing_down = True
        try:
            return (yield)
        finally:
            KeepFailed.tearing_down = False


def has_failed(node: Node) -> bool:
    """Whether ``node``, or a test in it, has failed so far."""
    return node.stash.get(_FAILED, False)


def kept_text(test: str, thing: MountedImage | BlockDevice | None) -> str:
    """Lines for a person: what ``test`` left, where it is, how to look at it."""
    if thing is None:  # interrupted while it was made
        return f"{test}\n    what it mounted last: see imagemount ps"
    from .errors import describe_part
    from .facts import MountFacts

    facts = thing.facts
    name = str(facts.source) if facts.part is None else f"{facts.source} {describe_part(facts.part)}"
    if isinstance(facts, MountFacts):
        kind, look = f"{facts.fstype}, {facts.mode}", f"ls -la {facts.mountpoint}"
    else:
        kind, look = f"not mounted, {facts.mode}", f"blkid -p {facts.path}"
    return f"{test}\n    {name} ({kind}) is at {thing}\n    look at it: {look}\n    remove it:  imagemount clean --kept"
