"""``--imagemount-keep``: what a failed test had mounted stays, is listed, and goes by ``imagemount clean --kept``."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.undo import wait_until
from tests.leaks import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_imagemount.factory import ImageFactory

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs")


@pytest.fixture
def disk(image_factory: ImageFactory, pytester: pytest.Pytester) -> Path:
    """An image in the folder of the run, with a file in it."""
    made = image_factory(fstype="ext4", content={"log": "what went wrong"})
    return made.rename(pytester.path / "disk.raw")


@pytest.fixture(autouse=True)
def clean_up() -> Iterator[None]:
    """What is kept is removed as a user does it, and then nothing is left."""
    before = snapshot()
    yield
    command = [sys.executable, "-m", "pytest_imagemount.cli", "clean", "--kept"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wait_until(lambda: snapshot() <= before, 5)
    left = snapshot() - before
    assert not left, f"left behind: {sorted(left)}"


def kept_in(result: pytest.RunResult) -> list[Path]:
    """The mount points that the summary names."""
    return [Path(found) for found in re.findall(r"\) is at (/\S+)", result.stdout.str())]


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_what_a_failed_test_had_mounted_stays_and_is_listed(pytester: pytest.Pytester, options: tuple[str]) -> None:
    pytester.makepyfile(
        """
        def test_fails_in_the_block(mounted_image):
            with mounted_image("disk.raw") as image:
                assert (image / "log").read_text() == "fine"

        def test_fails_with_it_left_open(mounted_image):
            mounted_image("disk.raw").__enter__()
            assert False

        def test_fails_after_the_block(mounted_image):
            with mounted_image("disk.raw"):
                pass
            assert False

        def test_passes(mounted_image):
            mounted_image("disk.raw").__enter__()
        """
    )
    result = pytester.runpytest_subprocess("--imagemount-keep", *options)
    result.assert_outcomes(failed=3, passed=1)
    kept = kept_in(result)
    assert len(kept) == 2
    assert [(place / "log").read_text() for place in kept] == ["what went wrong"] * 2
    result.stdout.fnmatch_lines(
        [
            "*= imagemount: kept =*",
            "test_*.py::test_fails_in_the_block",
            f"*{pytester.path}/disk.raw (ext4, ro) is at {kept[0]}",
            f"*look at it: ls -la {kept[0]}",
            "    remove it:  imagemount clean --kept",
        ]
    )
    result.stdout.no_fnmatch_line("*left behind*")


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("scope", ["class", "module", "session"])
def test_a_wider_scope_keeps_when_any_test_in_it_failed(pytester: pytest.Pytester, scope: str) -> None:
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.fixture(scope="{scope}")
        def image({scope}_mounted_image):
            with {scope}_mounted_image("{pytester.path}/disk.raw") as image:
                yield image

        class TestIt:
            def test_fails(self, image):
                assert False

            def test_passes(self, image, {scope}_mounted_image):
                {scope}_mounted_image("{pytester.path}/disk.raw").__enter__()
                with {scope}_mounted_image("{pytester.path}/disk.raw") as released:
                    pass
                assert not released.root.is_mount()
        """
    )
    result = pytester.runpytest_subprocess("--imagemount-keep")
    result.assert_outcomes(failed=1, passed=1)
    kept = kept_in(result)
    assert [place.is_mount() for place in kept] == [True, True]


@pytest.mark.usefixtures("disk")
def test_the_block_of_a_fixture_keeps_when_its_test_failed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def image(mounted_image):
            with mounted_image("disk.raw") as image:
                yield image

        def test_fails(image):
            assert False

        def test_passes(image):
            pass
        """
    )
    result = pytester.runpytest_subprocess("--imagemount-keep")
    result.assert_outcomes(failed=1, passed=1)
    (kept,) = kept_in(result)
    assert (kept / "log").read_text() == "what went wrong"


@pytest.mark.usefixtures("disk")
def test_nothing_is_kept_of_tests_that_did_not_fail(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        def test_expects_an_error(mounted_image):
            with pytest.raises(ValueError), mounted_image("disk.raw"):
                raise ValueError

        @pytest.mark.xfail
        def test_is_expected_to_fail(mounted_image):
            with mounted_image("disk.raw"):
                assert False

        def test_is_skipped(mounted_image):
            with mounted_image("disk.raw"):
                pytest.skip("no")
        """
    )
    result = pytester.runpytest_subprocess("--imagemount-keep")
    result.assert_outcomes(passed=1, xfailed=1, skipped=1)
    result.stdout.no_fnmatch_line("*imagemount: kept*")


@pytest.mark.usefixtures("disk")
def test_an_attached_device_is_kept_too(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_fails(attached_image):
            with attached_image("disk.raw"):
                assert False
        """
    )
    result = pytester.runpytest_subprocess("--imagemount-keep")
    (device,) = kept_in(result)
    assert device.is_block_device()
    result.stdout.fnmatch_lines([f"*disk.raw (not mounted, ro) is at {device}", f"*look at it: blkid -p {device}"])


@pytest.mark.usefixtures("disk")
def test_nothing_is_kept_unless_it_was_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_fails(mounted_image):\n    mounted_image('disk.raw').__enter__()\n    assert False")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*imagemount: kept*")
