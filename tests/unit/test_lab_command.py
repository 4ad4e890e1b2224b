from __future__ import annotations

import argparse
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pytest_imagemount.errors import LabFailed, RequestInvalid
from pytest_imagemount.lab import FAILED, MODULES, command


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The arguments of the lab that was run; ``raises`` is what it raises, ``kills`` the signal that it gets."""
    call: dict[str, Any] = {}

    def run_in_lab(words: list[str], **options: Any) -> int:
        call.update(options, command=words)
        if "kills" in call:
            os.kill(os.getpid(), call["kills"])
        if "raises" in call:
            raise call["raises"]
        return 5

    monkeypatch.setattr(command, "run_in_lab", run_in_lab)
    return call


def run(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.run(parser.parse_args(arguments))


def test_the_options_reach_the_lab(called: dict[str, Any]) -> None:
    options = "--memory 1G --timeout 2.5 --rw /a --rw /b --ro /c --nbds 2 --module md-mod -- pytest -n 2 -- x"
    assert run(*options.split()) == 5
    assert called == {
        "command": ["pytest", "-n", "2", "--", "x"],
        "memory": "1G",
        "timeout": 2.5,
        "read_write": [Path("/a"), Path("/b")],
        "read_only": [Path("/c")],
        "nbds_max": 2,
        "modules": (*MODULES, "md-mod"),
    }


def test_the_dashes_before_the_command_may_be_left_out(called: dict[str, Any]) -> None:
    run("pytest", "--memory", "tests")
    assert called["command"] == ["pytest", "--memory", "tests"]
    assert called["memory"] == "2G"


@pytest.mark.parametrize(
    "error",
    [
        LabFailed(reason="its kernel did not come up", hint="see the end of its console"),
        RequestInvalid(argument="memory", value="x", reason="no"),
    ],
)
def test_a_lab_that_fails_says_why_and_has_a_status_of_its_own(
    called: dict[str, Any], capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    called["raises"] = error
    assert run("--", "true") == FAILED
    assert capsys.readouterr().err == f"imagemount lab: {error}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_the_status_and_its_handler_is_put_back(called: dict[str, Any], number: signal.Signals) -> None:
    before = signal.getsignal(number)
    called["kills"] = number
    assert run("--", "true") == 128 + number
    assert signal.getsignal(number) == before
