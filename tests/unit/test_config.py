"""Settings: the three places where each may be said, their order, and what a wrong value is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount import config as imagemount_config
from pytest_imagemount.config import Settings, settings_from
from pytest_imagemount.errors import RequestInvalid

if TYPE_CHECKING:
    from collections.abc import Callable

    Configure = Callable[..., pytest.Config]


class _Plugin:
    """The options of the plugin, without the rest of it."""

    @staticmethod
    def pytest_addoption(parser: pytest.Parser) -> None:
        imagemount_config.add_options(parser)


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("IMAGEMOUNT_") or name == "PYTEST_ADDOPTS":
            monkeypatch.delenv(name)


@pytest.fixture
def configure(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """A pytest config from command-line arguments and lines of pytest.ini."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.plugins = [_Plugin()]

    def make(*arguments: str, ini: str = "") -> pytest.Config:
        pytester.makeini(f"[pytest]\n{ini}\n")
        return pytester.parseconfig(*arguments)

    return make


CASES = [
    ("backend", "fuse", "fuse"),
    ("timeout", "2.5", 2.5),
    ("unavailable", "skip", "skip"),
    ("keep", "yes", True),
    ("sudo", "never", "never"),
    ("nbd_devices", "4", 4),
    ("path", "/images", (Path("/images"),)),
    ("signals", "never", "never"),
    ("run", "allow", "allow"),
    ("cache", "/kept", Path("/kept")),
    ("unpack_limit", "2G", 2 << 30),
    ("backing_folders", "/base", (Path("/base"),)),
]


def test_the_cases_cover_every_setting() -> None:
    assert [name for name, _, _ in CASES] == list(Settings._fields)


def test_defaults_hold_where_nothing_is_said(configure: Configure) -> None:
    assert settings_from(configure()) == Settings()
    assert Settings.from_environment({}) == Settings()


@pytest.mark.parametrize(("name", "text", "value"), CASES)
def test_each_setting_is_taken_from_the_command_line(configure: Configure, name: str, text: str, value: object) -> None:
    flag = "--imagemount-" + name.replace("_", "-")
    settings = settings_from(configure(flag if name == "keep" else f"{flag}={text}"))
    assert getattr(settings, name) == value
    assert getattr(settings, name) != getattr(Settings(), name)


@pytest.mark.parametrize(("name", "text", "value"), CASES)
def test_each_setting_is_taken_from_the_environment(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: object
) -> None:
    monkeypatch.setenv(f"IMAGEMOUNT_{name.upper()}", text)
    assert getattr(settings_from(configure()), name) == value
    assert getattr(Settings.from_environment(), name) == value


@pytest.mark.parametrize(("name", "text", "value"), CASES)
def test_each_setting_is_taken_from_the_ini_file(configure: Configure, name: str, text: str, value: object) -> None:
    assert getattr(settings_from(configure(ini=f"imagemount_{name} = {text}")), name) == value


def test_the_command_line_wins_over_the_environment_which_wins_over_the_ini_file(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    ini = "imagemount_timeout = 1\nimagemount_nbd_devices = 1\nimagemount_backend = loop"
    monkeypatch.setenv("IMAGEMOUNT_TIMEOUT", "2")
    monkeypatch.setenv("IMAGEMOUNT_NBD_DEVICES", "2")
    settings = settings_from(configure("--imagemount-timeout=3", ini=ini))
    assert (settings.timeout, settings.nbd_devices, settings.backend) == (3.0, 2, "loop")


def test_the_environment_can_switch_off_what_the_ini_file_switched_on(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMAGEMOUNT_KEEP", "off")
    assert settings_from(configure(ini="imagemount_keep = true")).keep is False


def test_an_empty_variable_counts_as_not_set(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEMOUNT_BACKEND", "")
    assert settings_from(configure(ini="imagemount_backend = nbd")).backend == "nbd"


WRONG = [
    ("backend", "lop", "expected auto, loop, nbd or fuse"),
    ("timeout", "soon", "expected a number of seconds above 0"),
    ("timeout", "0", "expected a number of seconds above 0"),
    ("timeout", "inf", "expected a number of seconds above 0"),
    ("timeout", "nan", "expected a number of seconds above 0"),
    ("unavailable", "ignore", "expected fail or skip"),
    ("sudo", "always", "expected auto or never"),
    ("signals", "always", "expected auto or never"),
    ("nbd_devices", "0", "expected a whole number from 1 to 1024"),
    ("nbd_devices", "1025", "expected a whole number from 1 to 1024"),
    ("nbd_devices", "2.5", "expected a whole number from 1 to 1024"),
]


@pytest.mark.parametrize(("name", "text", "accepted"), WRONG)
def test_a_wrong_option_is_a_usage_error_that_names_it(
    configure: Configure, name: str, text: str, accepted: str
) -> None:
    flag = "--imagemount-" + name.replace("_", "-")
    with pytest.raises(pytest.UsageError) as caught:
        settings_from(configure(f"{flag}={text}"))
    assert str(caught.value) == f"{flag}={text}: {accepted}"


@pytest.mark.parametrize(("name", "text", "accepted"), [*WRONG, ("keep", "perhaps", "one of 1, yes, true, on")])
def test_a_wrong_variable_is_a_usage_error_that_names_it(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, name: str, text: str, accepted: str
) -> None:
    variable = f"IMAGEMOUNT_{name.upper()}"
    monkeypatch.setenv(variable, text)
    with pytest.raises(pytest.UsageError) as caught:
        settings_from(configure())
    assert str(caught.value).startswith(f"{variable}={text}: ")
    assert accepted in str(caught.value)
    with pytest.raises(RequestInvalid) as without_pytest:
        Settings.from_environment()
    assert str(without_pytest.value) == str(caught.value)


@pytest.mark.parametrize(("name", "text", "accepted"), [*WRONG, ("keep", "perhaps", "expected one of 1, yes")])
def test_a_wrong_ini_key_is_a_usage_error_that_names_it(
    configure: Configure, name: str, text: str, accepted: str
) -> None:
    with pytest.raises(pytest.UsageError) as caught:
        settings_from(configure(ini=f"imagemount_{name} = {text}"))
    assert str(caught.value).startswith(f"ini imagemount_{name}")
    assert text in str(caught.value)
    assert accepted in str(caught.value)


def test_folders_are_relative_to_where_they_are_written(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester
) -> None:
    below = pytester.mkdir("below")
    config = configure("--imagemount-path=a:b", "--imagemount-path=/c")
    assert settings_from(config).path == (pytester.path / "a:b", Path("/c"))

    config = configure(ini="imagemount_path = a ../b")
    monkeypatch.chdir(below)
    assert settings_from(config).path == (pytester.path / "a", pytester.path / "../b")

    monkeypatch.setenv("IMAGEMOUNT_PATH", "a:/b::c")
    assert settings_from(config).path == (below / "a", Path("/b"), below / "c")


@pytest.mark.skipif(pytest.version_tuple < (9, 0), reason="pytest.toml came with pytest 9.0")
@pytest.mark.usefixtures("configure")
def test_a_toml_file_gives_numbers_and_booleans_as_such(pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("pytest.toml").write_text(
        "[pytest]\nimagemount_timeout = 90\nimagemount_nbd_devices = 2\nimagemount_keep = true\n"
        'imagemount_path = ["a"]\n'
    )
    settings = settings_from(pytester.parseconfig())
    assert settings == Settings(timeout=90.0, nbd_devices=2, keep=True, path=(pytester.path / "a",))


def test_the_help_says_the_default_of_each_setting() -> None:
    parser = _RecordingParser()
    imagemount_config.add_options(parser)  # type: ignore[arg-type]
    for name, value in Settings._field_defaults.items():
        others = {"unpack_limit": "64G", "cache": "pytest-imagemount in $XDG_CACHE_HOME or ~/.cache"}
        said = {"timeout": "60", "keep": "no", "path": "none", "backing_folders": "none"} | others
        default = said.get(name, str(value))
        flag = "--imagemount-" + name.replace("_", "-")
        assert parser.helps[flag].endswith(f"(default: {default})")
        assert parser.helps[f"imagemount_{name}"] == parser.helps[flag]
    assert len(parser.helps) == 2 * len(Settings._fields)


class _RecordingParser:
    """Takes the place of pytest's parser, and keeps the help texts."""

    def __init__(self) -> None:
        self.helps: dict[str, str] = {}

    def getgroup(self, name: str, description: str) -> _RecordingParser:
        return self

    def addoption(self, flag: str, *, help: str, **_: object) -> None:
        self.helps[flag] = help

    def addini(self, name: str, help: str, **_: object) -> None:
        self.helps[name] = help
