"""The plugin as pytest shows and runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

FIXTURES = [
    f"{scope}{kind}_image"
    for kind in ("mounted", "attached")
    for scope in ("", "class_", "module_", "package_", "session_")
]


def test_every_fixture_is_listed_with_its_docstring(pytester: pytest.Pytester) -> None:
    lines = pytester.runpytest_subprocess("--fixtures").stdout.lines
    for name in [*FIXTURES, "image_factory"]:
        at = next(number for number, line in enumerate(lines) if line.startswith((f"{name} ", f"{name} [")))
        assert lines[at + 1].startswith("    "), f"{name} has no docstring"


@pytest.mark.parametrize("options", [(), ("-n", "2"), ("-p", "no:xdist")])
def test_it_keeps_out_of_the_way_of_tests_that_do_not_use_it(
    pytester: pytest.Pytester, options: tuple[str, ...]
) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["imagemount: *"])


def test_a_run_that_mounts_nothing_imports_nothing_heavy(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            ours = {name for name in sys.modules if name.startswith("pytest_imagemount.")}
            heavy = ("client", "session", "engine", "helper", "factory", "image_path", "lab")
            assert "pytest_imagemount.plugin" in ours
            assert not [name for name in ours if name.split(".")[1] in heavy]
            assert "filelock" not in sys.modules or "ctypes" not in sys.modules
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_an_error_is_shown_at_the_line_of_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_it(mounted_image):
            with mounted_image("absent.raw"):
                pass
        """
    )
    output = pytester.runpytest_subprocess().stdout.str()
    assert ">       with mounted_image" in output
    assert "test_an_error_is_shown_at_the_line_of_the_test.py:2: ImageNotFound" in output
    assert "/pytest_imagemount/" not in output
    assert "/pytest_imagemount/image_files.py" in pytester.runpytest_subprocess("--full-trace").stdout.str()


def test_a_fault_is_shown_whole(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_it(mounted_image, monkeypatch):
            monkeypatch.setattr("pytest_imagemount.image_files.find_image", lambda *_: 1 / 0)
            with mounted_image("absent.raw"):
                pass
        """
    )
    assert "/pytest_imagemount/image_files.py" in pytester.runpytest_subprocess().stdout.str()


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--imagemount-backend=floppy", "*--imagemount-backend=floppy*auto, loop, nbd or fuse*"),
        ("--imagemount-timeout=soon", "*--imagemount-timeout=soon*seconds*"),
    ],
)
def test_a_bad_option_is_a_usage_error_before_any_test(pytester: pytest.Pytester, option: str, text: str) -> None:
    pytester.makepyfile("def test_nothing(): pass")
    result = pytester.runpytest_subprocess(option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([text])


@pytest.mark.parametrize("how", ["command line", "environment", "ini"])
def test_what_is_unavailable_skips_on_request(
    how: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        """
        def test_it(mounted_image, monkeypatch):
            monkeypatch.setattr("os.geteuid", lambda: 12345)
            open("disk.raw", "wb").write(bytes(4096))
            with mounted_image("disk.raw"):
                pass
        """
    )
    options = ["--imagemount-sudo=never"]
    if how == "command line":
        options.append("--imagemount-unavailable=skip")
    elif how == "environment":
        monkeypatch.setenv("IMAGEMOUNT_UNAVAILABLE", "skip")
    else:
        pytester.makeini("[pytest]\nimagemount_unavailable = skip\n")
    result = pytester.runpytest_subprocess("-rs", *options)
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*SKIPPED*imagemount: root is not available here*"])


def test_what_is_unavailable_fails_by_default(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_it(mounted_image, monkeypatch):
            monkeypatch.setattr("os.geteuid", lambda: 12345)
            open("disk.raw", "wb").write(bytes(4096))
            with mounted_image("disk.raw"):
                pass
        """
    )
    result = pytester.runpytest_subprocess("--imagemount-sudo=never")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*CapabilityMissing: root is not available here*run as root*"])


def test_a_missing_image_fails_with_where_it_looked(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(mounted_image):\n    with mounted_image('absent.qcow2'): pass\n")
    pytester.makeini("[pytest]\nimagemount_path = images\n")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*absent.qcow2*not found*", f"*{pytester.path}/images/absent.qcow2", f"*{pytester.path}/absent.qcow2"]
    )


def test_the_version_is_the_distributions(tmp_path: Path) -> None:
    code = "import importlib.metadata, pytest_imagemount.cli; print(importlib.metadata.version('pytest-imagemount'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env={**os.environ}
    )
    assert done.stdout.strip()
