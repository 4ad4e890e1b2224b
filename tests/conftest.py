"""What all tests share: ``needs``, by which a test says what the machine must be able to do, and their ``pytester``."""

from __future__ import annotations

import os
import signal

import pytest

from pytest_imagemount.capabilities import missing

pytest_plugins = ["pytester"]


def pytest_configure(config: pytest.Config) -> None:
    # A shell ignores SIGINT and SIGQUIT for what it runs in the background, nohup SIGHUP; all below would inherit it.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    config.addinivalue_line(
        "markers", "needs(*capabilities): what the machine must be able to do (`imagemount doctor`)"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs this machine does not meet; fail it where IMAGEMOUNT_REQUIRE names the need, as CI does.

    ``IMAGEMOUNT_REQUIRE=all`` names every one.
    """
    required = os.environ.get("IMAGEMOUNT_REQUIRE", "").split(",")
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            if reason := missing(name):
                if name in required or required == ["all"]:
                    pytest.fail(f"IMAGEMOUNT_REQUIRE names {name}, which is missing: {reason}", pytrace=False)
                pytest.skip(f"needs {name}: {reason}")


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A run within a test prints the same everywhere: on a CI system pytest cuts no explanation and no summary line."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    return pytester
