"""The command ``imagemount`` itself: help, version, errors, exit status."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount import cli
from pytest_imagemount.errors import ImageInvalid

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

PROGRAM = (sys.executable, "-m", "pytest_imagemount.cli")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Make ``imagemount doctor`` run a function."""

    def use(run: Callable[..., Any]) -> None:
        def add_arguments(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("--number", type=int)

        module = SimpleNamespace(add_arguments=add_arguments, run=run)
        monkeypatch.setattr(importlib, "import_module", lambda name: module)

    return use


def test_the_subcommand_gets_its_arguments_and_gives_the_exit_status(
    command: Callable[[Callable[..., Any]], None],
) -> None:
    command(lambda args: args.number)
    assert cli.main(["doctor", "--number", "7"]) == 7


def test_an_error_is_one_message_and_status_2(
    command: Callable[[Callable[..., Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: object) -> int:
        raise ImageInvalid(image="a\x1b[31m.raw", reason="it is empty", hint="build it again")

    command(run)
    assert cli.main(["doctor"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "imagemount: error: image 'a\\x1b[31m.raw': it is empty; build it again\n"
    assert captured.out == ""


def test_ctrl_c_is_quiet_and_status_130(
    command: Callable[[Callable[..., Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(args: object) -> int:
        raise KeyboardInterrupt

    command(run)
    assert cli.main(["doctor"]) == 130
    assert capsys.readouterr().err == ""


def test_other_exceptions_are_defects_and_keep_their_traceback(
    command: Callable[[Callable[..., Any]], None],
) -> None:
    def run(args: object) -> int:
        raise ZeroDivisionError

    command(run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["doctor"])


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen([*PROGRAM, "doctor", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == b""
    assert process.wait() == 141


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_streams_change_nothing_but_what_is_seen(closed: int) -> None:
    code = "import os, sys; os.close(int(sys.argv[1])); os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    argv = [sys.executable, "-c", code, str(closed), *PROGRAM[1:], "ps", "--json"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("mounts" in done.stdout) == (closed != 1)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_one_message_and_status_2(unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        argv = [*PROGRAM, "ps"]
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr == "imagemount: error: [Errno 28] No space left on device\n"


def test_the_help_names_every_subcommand_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for text in ("doctor ", "inspect ", "lab ", "imagemount inspect disk.qcow2", "imagemount lab -- pytest"):
        assert text in out


@pytest.mark.parametrize("name", ["doctor", "inspect", "lab"])
def test_every_subcommand_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: imagemount {name} ")


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("imagemount ")


@pytest.mark.parametrize("arguments", [[], ["mount"], ["doctor", "--fix"]])
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage: imagemount" in capsys.readouterr().err


def test_only_what_is_needed_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from pytest_imagemount import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(name for name in sys.modules if name.startswith('pytest_imagemount.') or name == 'pytest'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    needed = ["cli", "engine", "engine.text", "errors"]
    assert done.stdout.splitlines()[-1] == str([f"pytest_imagemount.{name}" for name in needed])
