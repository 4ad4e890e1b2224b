"""Many workers share few devices: 40 tests, 4 workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("privileged", "loop", "ext4", "mke2fs", "qemu-img")

SUITE = """
import pytest

@pytest.mark.parametrize("number", range(40))
def test_it(number, mounted_image):
    with mounted_image({disk!r}, 1, backend={backend!r}) as image:
        assert image.backend == {backend!r}
        assert (image / "etc/hostname").read_text() == "web01\\n"
"""


@pytest.mark.parametrize(
    ("backend", "options"),
    [
        pytest.param("fuse", (), id="fuse", marks=pytest.mark.needs("fuse")),
        pytest.param("nbd", ("--imagemount-nbd-devices=2",), id="nbd-2-devices", marks=pytest.mark.needs("nbd")),
    ],
)
def test_40_tests_of_4_workers_each_get_a_device(
    backend: str, options: tuple[str, ...], pytester: pytest.Pytester, image_factory: ImageBuilder
) -> None:
    disk = image_factory(
        format="qcow2", table="gpt", partitions=[{"fstype": "ext4", "content": {"etc/hostname": "web01\n"}}]
    )
    pytester.makepyfile(SUITE.format(disk=str(disk), backend=backend))
    pytester.runpytest_subprocess("-n", "4", *options).assert_outcomes(passed=40)


@pytest.mark.needs("nbd")
def test_the_deadline_names_who_holds_the_device(pytester: pytest.Pytester, image_factory: ImageBuilder) -> None:
    disk = image_factory(format="qcow2", fstype="ext4")
    pytester.makepyfile(
        f"""
        import pytest
        from pytest_imagemount.errors import DeviceTimeout

        def test_it(mounted_image):
            with mounted_image({str(disk)!r}, backend="nbd") as image:
                with pytest.raises(DeviceTimeout) as caught:
                    mounted_image({str(disk)!r}, backend="nbd", timeout=0.3).__enter__()
                assert "nbd0: pid" in str(caught.value)
                assert "test_it" in str(caught.value)
                assert image.device == "/dev/nbd0"
        """
    )
    pytester.runpytest_subprocess("--imagemount-nbd-devices=1").assert_outcomes(passed=1)


WRITERS = """
import pytest

@pytest.mark.parametrize("number", range(8))
def test_each_writes_alone(number, mounted_image):
    with mounted_image({disk!r}, mode="rw") as image:
        count = image / "count"
        count.write_text(str(int(count.read_text()) + 1))
"""


def test_writers_of_one_image_take_turns(pytester: pytest.Pytester, image_factory: ImageBuilder) -> None:
    disk = image_factory(fstype="ext4", content={"count": "0"})
    pytester.makepyfile(WRITERS.format(disk=str(disk)))
    pytester.runpytest_subprocess("-n", "4").assert_outcomes(passed=8)
    pytester.makepyfile(
        test_count=f"def test_count(mounted_image):\n"
        f"    with mounted_image({str(disk)!r}) as image:\n"
        f"        assert (image / 'count').read_text() == '8'\n"
    )
    pytester.runpytest_subprocess("test_count.py").assert_outcomes(passed=1)


READERS = """
import time
from pathlib import Path
import pytest

@pytest.mark.parametrize("number", range(3))
def test_reader(number, mounted_image):
    end = time.monotonic() + 60
    while not Path({written!r}).exists():
        assert time.monotonic() < end, "the writer did not come to its turn"
        with mounted_image({disk!r}):
            time.sleep(0.1)

def test_writer(mounted_image):
    with mounted_image({disk!r}, mode="rw", timeout=50) as image:
        (image / "written").touch()
    Path({written!r}).touch()
"""


def test_a_writer_comes_to_its_turn_among_readers(
    pytester: pytest.Pytester, image_factory: ImageBuilder, tmp_path: Path
) -> None:
    disk = image_factory(fstype="ext4")
    pytester.makepyfile(READERS.format(disk=str(disk), written=str(tmp_path / "written")))
    pytester.runpytest_subprocess("-n", "4").assert_outcomes(passed=4)


@pytest.mark.parametrize(("first", "second"), [("rw", "ro"), ("ro", "rw"), ("overlay", "rw")])
def test_who_waits_for_an_image_is_told_for_whom(
    first: str, second: str, pytester: pytest.Pytester, image_factory: ImageBuilder
) -> None:
    disk = image_factory(fstype="ext4")
    pytester.makepyfile(
        f"""
        import pytest
        from pytest_imagemount.errors import ImageBusy

        def test_it(mounted_image):
            with mounted_image({str(disk)!r}, mode={first!r}):
                with pytest.raises(ImageBusy, match="test_it"):
                    mounted_image({str(disk)!r}, mode={second!r}, timeout=2.2).__enter__()
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    result.stderr.fnmatch_lines(["imagemount: *.raw waits for the image; held by *test_it, for 2 s"])


COPIES = """
import pytest

@pytest.mark.parametrize("number", range(12))
def test_it(number, mounted_image):
    with mounted_image({disks!r}[number % 2]) as image:
        assert (image / "etc/hostname").read_text() == "web01\\n"
"""


@pytest.mark.parametrize(
    "fstype",
    [
        pytest.param("xfs", marks=pytest.mark.needs("xfs", "mkfs.xfs")),
        pytest.param("btrfs", marks=pytest.mark.needs("btrfs", "mkfs.btrfs")),
    ],
)
def test_all_workers_mount_one_file_system_and_its_copy(
    fstype: str, pytester: pytest.Pytester, image_factory: ImageBuilder
) -> None:
    disk = image_factory(fstype=fstype, content={"etc/hostname": "web01\n"})
    copy = disk.with_name(f"copy-of-{disk.name}")
    copy.write_bytes(disk.read_bytes())
    pytester.makepyfile(COPIES.format(disks=[str(disk), str(copy)]))
    pytester.runpytest_subprocess("-n", "4").assert_outcomes(passed=12)


@pytest.mark.needs("btrfs", "mkfs.btrfs")
def test_copies_of_a_btrfs_at_once_are_mounted_or_wait_for_their_turn(
    pytester: pytest.Pytester, image_factory: ImageBuilder
) -> None:
    disk = image_factory(fstype="btrfs")
    copy = disk.with_name("copy.raw")
    copy.write_bytes(disk.read_bytes())
    pytester.makepyfile(
        f"""
        import pytest
        from pytest_imagemount.engine.filesystem_lock import needs_turns
        from pytest_imagemount.errors import ImageBusy

        def test_it(mounted_image):
            with mounted_image({str(disk)!r}):
                second = mounted_image({str(copy)!r}, timeout=2.2)
                if not needs_turns("btrfs"):
                    with second as image:
                        assert image.fstype == "btrfs"
                    return
                with pytest.raises(ImageBusy, match="test_it.*btrfstune"):
                    second.__enter__()
            with mounted_image({str(copy)!r}) as image:
                assert image.fstype == "btrfs"
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize("mode", ["ro", "rw"])
def test_an_image_that_looks_broken_while_another_writes_to_it_is_waited_for(
    mode: str, pytester: pytest.Pytester, image_factory: ImageBuilder
) -> None:
    disk = image_factory(fstype="ext4", format="qcow2", content={"file": "x"})
    pytester.makepyfile(
        f"""
        import fcntl, os, threading
        from pathlib import Path

        import pytest
        from pytest_imagemount.errors import ImageBusy, ImageInvalid

        disk = Path({str(disk)!r})

        def test_it(mounted_image):
            whole = disk.read_bytes()
            with disk.open("r+b") as writer:
                os.truncate(disk, len(whole) // 2)
                with pytest.raises(ImageInvalid, match="truncated"):
                    mounted_image(disk).__enter__()
                fcntl.flock(writer, fcntl.LOCK_EX)
                with pytest.raises(ImageBusy, match="still after"):
                    mounted_image(disk, mode={mode!r}, timeout=0.2).__enter__()
                disk.write_bytes(whole)
            with mounted_image(disk, mode={mode!r}) as image:
                assert (image / "file").read_text() == "x"
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
