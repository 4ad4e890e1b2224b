"""The end of a run: what was left open or could not be undone fails it, with a list of what and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_imagemount.factory import ImageFactory

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs")


@pytest.fixture
def disk(image_factory: ImageFactory, pytester: pytest.Pytester) -> Path:
    """An image in the folder of the run, with a file in it."""
    made = image_factory(fstype="ext4", content={"f": "x"})
    return made.rename(pytester.path / "disk.raw")


WORKERS = pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["plain", "workers"])


@WORKERS
def test_a_library_mount_that_nobody_closes_fails_the_run(
    disk: Path, pytester: pytest.Pytester, options: tuple[str]
) -> None:
    pytester.makepyfile(
        f"""
        from pytest_imagemount import mount_image

        def test_passes():
            mount_image({str(disk)!r}).__enter__()
        """
    )
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        [
            "*= imagemount: left behind =*",
            f"*image '{disk}' was still open when the last finalizer had run; opened by *::test_passes (call) at *:4",
            "    open it in a with statement, or by a fixture (mounted_image and its like)",
        ]
    )


def test_a_library_mount_of_a_test_module_fails_the_run(
    disk: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    path = pytester.makepyfile(
        f"""
        from pytest_imagemount import attach_image

        held = attach_image({str(disk)!r})
        held.__enter__()

        def test_passes(): pass
        """
    )
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"*opened by {path}:3"])


@WORKERS
def test_what_cannot_be_undone_fails_the_run_and_names_who_holds_it(
    disk: Path, pytester: pytest.Pytester, options: tuple[str]
) -> None:
    pytester.makepyfile(
        f"""
        from pytest_imagemount import mount_image

        def test_passes():
            global file
            image = mount_image({str(disk)!r}).__enter__()
            file = open(image.root / "f")
        """
    )
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["*= imagemount: left behind =*", "*is busy*", "*pid * open as descriptor *", "    remove it: imagemount clean"]
    )


@WORKERS
def test_a_run_that_closes_everything_says_nothing(disk: Path, pytester: pytest.Pytester, options: tuple[str]) -> None:
    pytester.makepyfile(
        f"""
        from pytest_imagemount import mount_image

        def test_library():
            with mount_image({str(disk)!r}) as image:
                assert (image / "f").read_text() == "x"

        def test_fixture(mounted_image):
            mounted_image({str(disk)!r}).__enter__()
        """
    )
    result = pytester.runpytest_subprocess(*options)
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.no_fnmatch_line("*left behind*")


def test_an_interrupted_run_is_not_blamed_for_what_its_finalizers_would_have_closed(
    disk: Path, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        f"""
        import pytest
        from pytest_imagemount import mount_image

        def test_it():
            mount_image({str(disk)!r}).__enter__()
            raise KeyboardInterrupt
        """
    )
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.no_fnmatch_line("*left behind*")


def test_a_factory_is_of_no_use_after_its_scope(disk: Path, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        import pytest
        from pytest_imagemount.errors import RequestInvalid

        kept = []

        def test_first(mounted_image):
            kept.append(mounted_image)
            kept.append(mounted_image({str(disk)!r}))

        def test_second():
            for pending in (kept[0]({str(disk)!r}), kept[1]):
                with pytest.raises(RequestInvalid, match="test_first, has ended; take the factory of a wider scope"):
                    pending.__enter__()
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=2)


def test_a_run_inside_a_run_leaves_the_mounts_of_the_outer_one(disk: Path, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("pytest_plugins = ['pytester']")
    pytester.makepyfile(
        f"""
        def test_outer(pytester, mounted_image):
            with mounted_image({str(disk)!r}) as image:
                pytester.makepyfile("def test_inner(mounted_image):\\n  with mounted_image({str(disk)!r}): pass")
                pytester.runpytest_inprocess().assert_outcomes(passed=1)
                assert (image / "f").read_text() == "x"
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
