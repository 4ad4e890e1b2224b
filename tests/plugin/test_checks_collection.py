"""Check files and --image as pytest collects and runs them. Nothing is mounted here: the checks are of the disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

import pytest

from pytest_imagemount import Partition, build_image
from pytest_imagemount.checks.results import Results
from pytest_imagemount.cli import main
from pytest_imagemount.terminal import Style

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.needs("libblkid", "mke2fs")

DISK = """
disk: {table: gpt}
partitions:
  root: {filesystem: ext4}
  2: {state: absent, why: one is enough}
"""


@pytest.fixture
def disk(pytester: pytest.Pytester) -> Path:
    """disk.raw in the working folder, with one partition."""
    return build_image(
        pytester.path / "disk.raw", table="gpt", partitions=[Partition(fstype="ext4", size="2M", name="root")]
    )


def check_file(pytester: pytest.Pytester, text: str, name: str = "base.imagecheck.yaml") -> Path:
    path = pytester.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def names(result: pytest.RunResult) -> list[str]:
    return [line.split(" ")[0] for line in result.stdout.lines if "::" in line and "PASSED" in line]


@pytest.mark.parametrize("options", [(), ("-n", "2"), ("-p", "no:xdist")])
def test_each_check_is_a_test_with_a_readable_name(
    options: tuple[str, ...], pytester: pytest.Pytester, disk: Path
) -> None:
    check_file(pytester, DISK, "checks/base.imagecheck.yaml")
    result = pytester.runpytest_inprocess("--image=disk.raw", "checks", "-rA", *options)
    result.assert_outcomes(passed=3)
    for name in ("disk", "partitions:root", "partitions:2"):
        result.stdout.fnmatch_lines([f"PASSED checks/base.imagecheck.yaml::{name}[[]disk.raw[]]"])


def test_one_check_is_selected_by_its_name(pytester: pytest.Pytester, disk: Path) -> None:
    check_file(pytester, DISK)
    name = "base.imagecheck.yaml::partitions:root[disk.raw]"
    pytester.runpytest_inprocess("--image=disk.raw", name).assert_outcomes(passed=1)
    pytester.runpytest_inprocess("--image=disk.raw", "-k", "partitions").assert_outcomes(passed=2, deselected=1)


@pytest.mark.parametrize("name", ["a.imagecheck.yaml", "a.imagecheck.yml"])
def test_both_endings_are_collected(name: str, pytester: pytest.Pytester, disk: Path) -> None:
    check_file(pytester, "disk: {table: gpt}", name)
    pytester.runpytest_inprocess("--image=disk.raw").assert_outcomes(passed=1)


@pytest.mark.parametrize("name", ["a.yaml", "imagecheck.yaml", "a.imagecheck.yaml.orig"])
def test_other_files_are_not_and_load_nothing(name: str, pytester: pytest.Pytester) -> None:
    check_file(pytester, "disk: {table: gpt}", name)
    pytester.makepyfile("import sys\ndef test_it(): assert 'pytest_imagemount.checks' not in sys.modules")
    pytester.runpytest_subprocess(".").assert_outcomes(passed=1)


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_a_failure_is_told_with_no_python_in_it(
    options: tuple[str, ...], pytester: pytest.Pytester, disk: Path
) -> None:
    check_file(pytester, "disk: {table: mbr}\npartitions:\n  root: {filesystem: xfs, min-size: 1 GiB, why: policy}\n")
    result = pytester.runpytest_inprocess("--image=disk.raw", *options)
    result.assert_outcomes(failed=2)
    text = result.stdout.str()
    assert (
        "partition root in disk.raw\n"
        "  filesystem  expected xfs\n"
        "              found    ext4\n"
        "  min-size    expected at least 1 GiB\n"
        "              found    2 MiB\n"
        "  why: policy\n"
        "  see  base.imagecheck.yaml:3\n"
    ) in text
    assert "Traceback" not in text
    assert "collect.py" not in text


def test_the_layout_of_the_disk_is_below_the_first_failure(pytester: pytest.Pytester, disk: Path) -> None:
    check_file(pytester, "disk: {table: mbr}\npartitions: {1: absent}")
    result = pytester.runpytest_inprocess("--image=disk.raw", "-p", "no:xdist")
    result.stdout.fnmatch_lines(["*- image disk.raw -*", "not mounted", "GPT partition table,*", "* 1 *root*"])
    assert result.stdout.str().count("GPT partition table") == 1


def test_a_check_fails_without_the_terminal_plugin_too(pytester: pytest.Pytester) -> None:
    (pytester.path / "empty.raw").write_bytes(bytes(1 << 20))
    check_file(pytester, "disk: {format: qcow2}")
    result = pytester.runpytest_subprocess(
        "--image=empty.raw", "-p", "no:terminal", "-p", "no:xdist", "--junitxml=o.xml"
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "expected qcow2" in (pytester.path / "o.xml").read_text()


def test_images_of_one_name_are_told_apart(pytester: pytest.Pytester, disk: Path) -> None:
    for folder in ("a", "b"):
        (pytester.path / folder).mkdir()
        (pytester.path / folder / "disk.raw").write_bytes(disk.read_bytes())
    other = disk.rename(pytester.path / "other.raw")
    check_file(pytester, "disk: {table: gpt}")
    images = ("a/disk.raw", "b/disk.raw", str(other), "a/../a/disk.raw")
    result = pytester.runpytest_inprocess(*(f"--image={image}" for image in images), "-v")
    result.assert_outcomes(passed=3)
    assert [name.partition("[")[2] for name in names(result)] == ["a/disk.raw]", "b/disk.raw]", "other.raw]"]


def test_a_file_may_name_its_own_image(pytester: pytest.Pytester, disk: Path) -> None:
    check_file(pytester, "image: ../disk.raw\ndisk: {format: raw}", "checks/base.imagecheck.yaml")
    result = pytester.runpytest_inprocess("-v")
    result.assert_outcomes(passed=1)
    assert names(result) == ["checks/base.imagecheck.yaml::disk[disk.raw]"]


def test_the_image_of_the_command_line_goes_before_that_of_the_file(pytester: pytest.Pytester, disk: Path) -> None:
    check_file(pytester, "image: absent.raw\ndisk: {format: raw}\n---\nimage: {partition: 1}\ndisk: {table: gpt}\n")
    result = pytester.runpytest_inprocess("--image=disk.raw", "-v")
    result.assert_outcomes(passed=2)
    assert names(result) == ["base.imagecheck.yaml::disk[disk.raw]", "base.imagecheck.yaml::disk[disk.raw:1]"]


def test_an_image_of_a_file_that_is_not_there_fails_its_checks(pytester: pytest.Pytester) -> None:
    check_file(pytester, "image: absent.raw\ndisk: {format: raw}")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["disk in absent.raw", "  image '*/absent.raw' not found; looked at:"])


def test_an_image_of_the_command_line_that_is_not_there_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_inprocess("--image=absent.raw")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --image: image 'absent.raw' not found*", f"  {pytester.path}/absent.raw"])


def test_without_an_image_checks_fail_and_say_what_to_give(pytester: pytest.Pytester) -> None:
    check_file(pytester, "disk: {format: raw}")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no image was given, and base.imagecheck.yaml names none: run pytest --image FILE"])
    result = pytester.runpytest_inprocess("--imagemount-unavailable=skip")
    result.assert_outcomes(skipped=1)


def test_mistakes_of_a_file_are_told_with_file_line_and_column(pytester: pytest.Pytester) -> None:
    check_file(pytester, "files:\n  /a: {onwer: root}\noss: {}\n", "checks/base.imagecheck.yaml")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "checks/base.imagecheck.yaml:2:8: unknown key 'onwer'; did you mean 'owner'?",
            "checks/base.imagecheck.yaml:3:1: unknown key 'oss'; did you mean 'os'?",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_a_fault_of_ours_is_shown_as_python_shows_it(pytester: pytest.Pytester, disk: Path) -> None:
    pytester.makeconftest(
        """
        from pytest_imagemount.checks import collect
        def broken(check, shared):
            raise ZeroDivisionError("ours")
        collect.problems_of = broken
        """
    )
    check_file(pytester, "disk: {format: raw}")
    result = pytester.runpytest_subprocess("--image=disk.raw")
    result.stdout.fnmatch_lines(["*ZeroDivisionError: ours"])
    assert "pluggy" not in result.stdout.str().split("FAILURES")[1]


# The fixtures


def test_a_test_runs_once_for_each_image(pytester: pytest.Pytester, disk: Path) -> None:
    other = pytester.path / "other.raw"
    other.write_bytes(disk.read_bytes())
    pytester.makepyfile(
        """
        def test_path(image_path):
            assert image_path.is_absolute() and image_path.is_file()
        def test_nothing(): pass
        """
    )
    result = pytester.runpytest_inprocess("--image=disk.raw", "--image=other.raw", "-v")
    result.assert_outcomes(passed=3)
    assert [name.split("::")[1] for name in names(result)] == [
        "test_path[disk.raw]",
        "test_path[other.raw]",
        "test_nothing",
    ]


@pytest.mark.parametrize("fixture", ["image", "image_path"])
def test_without_an_image_the_fixtures_fail_and_say_what_to_give(fixture: str, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(f"def test_it({fixture}): pass")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no image was given, and the fixtures image and image_path need one: run pytest *"])
    pytester.runpytest_inprocess("--imagemount-unavailable=skip").assert_outcomes(skipped=1)


@pytest.mark.parametrize("options", [(), ("--image=disk.raw",), ("--image=disk.raw", "-n", "1")])
def test_a_fixture_of_the_users_goes_before_ours(
    options: tuple[str, ...], pytester: pytest.Pytester, disk: Path
) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture(params=["red", "blue"])
        def image(request):
            return request.param

        def test_own(image):
            assert image in ("red", "blue")

        @pytest.mark.parametrize("image", [1, 2, 3])
        def test_own_parameters(image):
            assert image in (1, 2, 3)
        """
    )
    pytester.runpytest_inprocess("-W", "error", *options).assert_outcomes(passed=5)


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest 8 does not see what the fixture behind it asks for")
def test_a_fixture_of_the_users_may_extend_ours(pytester: pytest.Pytester, disk: Path) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def image_path(image_path):
            return image_path.name

        def test_it(image_path):
            assert image_path == "disk.raw"
        """
    )
    pytester.runpytest_inprocess("--image=disk.raw").assert_outcomes(passed=1)


def test_the_fixtures_and_options_are_listed_with_their_meaning(pytester: pytest.Pytester) -> None:
    lines = pytester.runpytest_inprocess("--fixtures").stdout.lines
    for name in ("image", "image_path"):
        at = next(number for number, line in enumerate(lines) if line.startswith(f"{name} ["))
        assert lines[at + 1].startswith("    "), f"{name} has no docstring"
    shown = pytester.runpytest_inprocess("--help").stdout.str()
    for option in ("--image=FILE", "--image-partition=WHICH", "--image-format=FORMAT"):
        assert option in shown


def test_checks_of_several_documents_are_told_apart(pytester: pytest.Pytester, disk: Path) -> None:
    for name in ("a", "b"):
        pytester.mkdir(name)
        shutil.copy(disk, pytester.path / name)
    check_file(pytester, "image: a/disk.raw\ndisk: {table: gpt}\n---\nimage: b/disk.raw\ndisk: {table: mbr}\n")
    for options, names in (
        ((), ["disk[a/disk.raw]", "disk[b/disk.raw]"]),
        (("--image=disk.raw",), ["disk[disk.raw]", "disk[disk.raw#2]"]),
    ):
        result = pytester.runpytest_inprocess("-v", *options)
        result.assert_outcomes(passed=1, failed=1)
        result.stdout.fnmatch_lines(
            [f"*::{names[0].replace('[', '[[]')} PASSED*", f"*::{names[1].replace('[', '[[]')} FAILED*"]
        )


# Reports


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_junit_properties_say_which_image_it_was(
    options: tuple[str, ...], pytester: pytest.Pytester, disk: Path
) -> None:
    check_file(pytester, DISK)
    pytester.makepyfile("def test_path(image_path): pass\ndef test_nothing(): pass")
    pytester.runpytest_inprocess("--image=disk.raw", "--junitxml=out.xml", *options).assert_outcomes(passed=5)
    cases = {case.get("name"): case for case in ElementTree.parse(pytester.path / "out.xml").iter("testcase")}
    digest = hashlib.sha256(disk.read_bytes()).hexdigest()
    common = {"image": "disk.raw", "image_path": str(disk), "image_sha256": digest}
    for name, expected in {
        "disk[disk.raw]": {**common, "image_format": "raw"},
        "test_path[disk.raw]": common,
        "test_nothing": {},
    }.items():
        found = {each.get("name"): each.get("value") for each in cases[name].iter("property")}
        assert found.items() >= expected.items()
        assert bool(found) == bool(expected)


def test_no_digest_is_taken_where_nobody_wants_it(pytester: pytest.Pytester, disk: Path) -> None:
    pytester.makeconftest(
        """
        import hashlib
        def file_digest(*_):
            raise AssertionError("a digest was taken")
        hashlib.file_digest = file_digest
        def pytest_runtest_logreport(report):
            assert ("image", "disk.raw") in report.user_properties or report.when == "setup"
        """
    )
    check_file(pytester, "disk: {format: raw}")
    pytester.runpytest_subprocess("--image=disk.raw").assert_outcomes(passed=1)


def test_the_digest_is_taken_once(pytester: pytest.Pytester, disk: Path) -> None:
    pytester.makeconftest(
        """
        import hashlib
        taken, real = [], hashlib.file_digest
        def file_digest(*args):
            taken.append(1)
            return real(*args)
        hashlib.file_digest = file_digest
        def pytest_sessionfinish():
            assert len(taken) == 1
        """
    )
    check_file(pytester, DISK)
    pytester.runpytest_subprocess("--image=disk.raw", "--junitxml=out.xml").assert_outcomes(passed=3)


def test_a_pipe_in_place_of_an_image_has_no_digest(pytester: pytest.Pytester) -> None:
    os.mkfifo(pytester.path / "pipe.raw")
    check_file(pytester, "disk: {format: raw}")
    result = pytester.runpytest_subprocess("--image=pipe.raw", "--junitxml=out.xml", timeout=60)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*this is a named pipe, not an image*"])
    (case,) = ElementTree.parse(pytester.path / "out.xml").iter("testcase")
    assert {each.get("name") for each in case.iter("property")} == {"image", "image_path"}


def test_an_image_that_cannot_be_read_any_more_ends_no_run(pytester: pytest.Pytester, disk: Path) -> None:
    pytester.makeconftest(
        """
        import errno
        from pytest_imagemount import inspection
        def inspect(*_, **__):
            raise OSError(errno.EIO, "Input/output error")
        inspection.inspect = inspect
        """
    )
    check_file(pytester, "disk: {format: raw}\npartitions: {1: exists}")
    result = pytester.runpytest_subprocess("--image=disk.raw")
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*cannot be read: Input/output error", "cannot be inspected: *Input/output error"])


# The command


class Ended(NamedTuple):
    status: int
    out: list[str]
    err: str


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    """``imagemount check`` in this process, in the working folder; its marks are ASCII."""
    monkeypatch.setattr(Style, "of", lambda stream: Style(colour=False, unicode=False))

    def run(*arguments: str) -> Ended:
        capsys.readouterr()
        status = main(["check", *arguments])
        captured = capsys.readouterr()
        return Ended(status, captured.out.splitlines(), captured.err)

    return run


def test_what_takes_the_reports_is_a_plugin_for_pytest_8_too() -> None:
    assert len({Results(), Results()}) == 2, "pytest 8 keeps its plugins in a set"


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_the_command_passes_and_fails_as_the_checks_do(
    options: tuple[str, ...], check: Callable[..., Ended], pytester: pytest.Pytester, disk: Path
) -> None:
    check_file(pytester, DISK)
    status, out, _ = check("disk.raw", "base.imagecheck.yaml", "--", *options)
    assert status == 0
    assert out[-5:-1] == ["base.imagecheck.yaml  disk.raw", "  ok disk", "  ok partitions (2 of 2)", ""]
    assert out[-1].startswith("3 checks: 3 passed in ")
    check_file(pytester, "disk: {table: mbr}\npartitions: {1: exists, 2: exists}", "more.imagecheck.yaml")
    status, out, _ = check("disk.raw", ".", "-q", "--", *options)
    assert status == 1
    assert out[-11:-1] == [
        "more.imagecheck.yaml  disk.raw",
        "  -- disk",
        "      table  expected mbr",
        "             found    gpt",
        "      see  more.imagecheck.yaml:1",
        "  -- partitions:2",
        "      state  expected exists",
        "             found    no such partition; there are: 1 (root)",
        "      see  more.imagecheck.yaml:2",
        "",
    ]
    assert out[-1].startswith("6 checks: 4 passed, 2 failed in ")


def test_the_command_counts_each_of_two_checks_with_one_name(
    check: Callable[..., Ended], pytester: pytest.Pytester, disk: Path
) -> None:
    check_file(pytester, "disk: {table: mbr}\n---\ndisk: {format: raw}\n")
    status, out, _ = check("disk.raw", "base.imagecheck.yaml", "-q")
    assert status == 1
    assert out[1:5] == [
        "  -- disk",
        "      table  expected mbr",
        "             found    gpt",
        "      see  base.imagecheck.yaml:1",
    ]
    assert out[-1].startswith("2 checks: 1 passed, 1 failed in ")


def test_the_command_selects_and_writes_junit_xml(
    check: Callable[..., Ended], pytester: pytest.Pytester, disk: Path
) -> None:
    check_file(pytester, DISK)
    status, out, _ = check("disk.raw", "base.imagecheck.yaml", "-k", "root", "--", "--junitxml=out.xml")
    assert status == 0
    assert out[-1].startswith("1 check: 1 passed in ")
    assert [case.get("name") for case in ElementTree.parse(pytester.path / "out.xml").iter("testcase")] == [
        "partitions:root[disk.raw]"
    ]


def test_the_command_warns_of_nothing_that_a_user_could_mend(pytester: pytest.Pytester, disk: Path) -> None:
    check_file(pytester, DISK)
    pytester.makepyfile(recorder="def pytest_warning_recorded(warning_message): print(warning_message)")
    pytester.syspathinsert()
    arguments = ("check", "disk.raw", "base.imagecheck.yaml", "-q", "--", "-p", "recorder")
    result = pytester.run(sys.executable, "-m", "pytest_imagemount.cli", *arguments)
    assert (result.ret, len(result.outlines), result.errlines) == (0, 1, [])


def test_commands_look_for_an_image_where_the_environment_says(
    check: Callable[..., Ended], pytester: pytest.Pytester, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = check_file(pytester, DISK)
    (pytester.path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert check("disk.raw", str(file)).status == 2
    monkeypatch.setenv("IMAGEMOUNT_PATH", str(disk.parent))
    assert check("disk.raw", str(file)).status == 0
    assert main(["inspect", "disk.raw"]) == 0


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_the_command_needs_nothing_that_the_environment_can_switch_off(
    options: tuple[str, ...], pytester: pytest.Pytester, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_file(pytester, DISK)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    arguments = ("check", "disk.raw", "base.imagecheck.yaml", "-q", "--", "-W", "error", *options)
    result = pytester.run(sys.executable, "-m", "pytest_imagemount.cli", *arguments)
    assert (result.ret, result.errlines) == (0, [])
    assert result.outlines[-1].startswith("3 checks: 3 passed in ")


def test_the_command_prints_json(check: Callable[..., Ended], pytester: pytest.Pytester, disk: Path) -> None:
    check_file(pytester, "disk: {table: mbr, why: old}\npartitions: {1: exists}")
    status, out, _ = check("disk.raw", "base.imagecheck.yaml", "--json", "--", "-n", "2")
    assert status == 1
    found = json.loads("\n".join(out))
    assert found["image"] == str(disk)
    assert found["counts"] == {"passed": 1, "skipped": 0, "failed": 1}
    failed, passed = found["checks"]
    assert (failed["check"], failed["outcome"], failed["line"], failed["why"]) == ("disk", "failed", 1, "old")
    assert failed["problems"] == [{"what": "table", "expected": "mbr", "found": "gpt", "path": ""}]
    assert (passed["section"], passed["subject"], passed["outcome"]) == ("partitions", "1", "passed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.raw", "base.imagecheck.yaml"], "image 'absent.raw' not found"),
        (["disk.raw"], "give check files, or --init to write a first one"),
        (["disk.raw", "absent.imagecheck.yaml"], "there is no such file"),
        (["disk.raw", "disk.raw"], "the name of a check file ends in .imagecheck.yaml"),
        (["disk.raw", "empty"], "there is no file *.imagecheck.yaml in this folder"),
        (["disk.raw", "bad.imagecheck.yaml"], "bad.imagecheck.yaml:1:8: unknown key 'tabel'; did you mean 'table'?"),
        (["disk.raw", "base.imagecheck.yaml", "-k", "xyzzy"], "no check was selected"),
        (["disk.raw", "base.imagecheck.yaml", "--", "--no-such-option"], "unrecognized arguments: --no-such-option"),
        (["--init", "disk.raw", "base.imagecheck.yaml"], "it is there already, and is not overwritten"),
        (["--init", "disk.raw", "base.yaml"], "the name must end in .imagecheck.yaml"),
        (["--init", "disk.raw", "a", "b"], "--init writes one file"),
    ],
)
def test_what_cannot_be_run_ends_with_status_2_and_says_why(
    arguments: list[str], message: str, check: Callable[..., Ended], pytester: pytest.Pytester, disk: Path
) -> None:
    check_file(pytester, DISK)
    check_file(pytester, "disk: {tabel: gpt}", "bad.imagecheck.yaml")
    (pytester.path / "empty").mkdir()
    status, out, err = check(*arguments)
    assert status == 2
    assert message in err
    assert out == []


def test_the_command_runs_no_python_of_the_folder_and_leaves_nothing_there(
    check: Callable[..., Ended], pytester: pytest.Pytester, disk: Path
) -> None:
    pytester.makeconftest("raise AssertionError('conftest.py was imported')")
    pytester.makeini("[pytest]\naddopts = --no-such-option\n")
    pytester.makepyfile(test_it="def test_it(): assert False")
    check_file(pytester, DISK)
    before = set(pytester.path.iterdir())
    status, out, _ = check("disk.raw", ".")
    assert status == 0
    assert out[-1].startswith("3 checks: 3 passed in ")
    left = {each.name for each in set(pytester.path.iterdir()) - before}
    assert left <= {".benchmarks"}, "which pytest-benchmark makes"
