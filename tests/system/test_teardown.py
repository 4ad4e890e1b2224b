"""What becomes of mounts when the test process does not end as it should."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.mountinfo import mounts
from pytest_imagemount.engine.undo import wait_until
from pytest_imagemount.errors import TeardownError
from tests.leaks import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_imagemount.plugin import MountFactory

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("privileged", "loop", "ext4", "mke2fs")

HOLDER = """
import os, sys, time
from contextlib import ExitStack
from pytest_imagemount import mount_image
stack = ExitStack()
for path in sys.argv[2:]:
    print(stack.enter_context(mount_image(path)).root, flush=True)
if sys.argv[1] == "fork":
    if os.fork() == 0:
        time.sleep(600)
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that a test starts; ended here if the test did not."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        with suppress(ProcessLookupError):  # all of its group has ended
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def start_holder(
    started: list[subprocess.Popen[str]], how: str, *images: Path
) -> tuple[subprocess.Popen[str], list[Path]]:
    """A process of its own group that holds ``images`` mounted, and their mount points."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, how, *images], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    started.append(process)
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(len(images) + 1)]
    assert lines.pop() == "held"
    return process, [Path(line) for line in lines]


def gone(before: frozenset[str], seconds: float) -> frozenset[str]:
    """What is left after at most ``seconds``."""
    wait_until(lambda: snapshot() <= before, seconds)
    return snapshot() - before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT, signal.SIGHUP])
def test_three_mounts_are_gone_when_their_process_is_killed(
    number: signal.Signals, image_factory: ImageBuilder, holder: list[subprocess.Popen[str]]
) -> None:
    images = [image_factory(fstype="ext4") for _ in range(3)]
    before = snapshot()
    process, roots = start_holder(holder, "hold", *images)
    assert all(root.is_mount() for root in roots)
    process.send_signal(number)
    process.wait()
    assert gone(before, 2) == frozenset()


@pytest.mark.needs("fuse", "qemu-img")
def test_qcow2_mounts_are_gone_when_their_process_is_killed(
    image_factory: ImageBuilder, holder: list[subprocess.Popen[str]]
) -> None:
    images = [image_factory(fstype="ext4", format="qcow2") for _ in range(3)]
    before = snapshot()
    process, _ = start_holder(holder, "hold", *images)
    process.kill()
    process.wait()
    assert gone(before, 2) == frozenset()


def test_a_forked_child_that_lives_on_does_not_keep_the_mounts(
    image_factory: ImageBuilder, holder: list[subprocess.Popen[str]]
) -> None:
    before = snapshot()
    process, _ = start_holder(holder, "fork", image_factory(fstype="ext4"))
    process.kill()
    process.wait()
    assert gone(before, 2) == frozenset()


def test_ctrl_c_reaches_the_test_process_alone(
    image_factory: ImageBuilder, holder: list[subprocess.Popen[str]]
) -> None:
    before = snapshot()
    process, roots = start_holder(holder, "hold", image_factory(fstype="ext4"))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 1
    assert os.getpgid(int(children[0])) != process.pid
    os.kill(int(children[0]), signal.SIGINT)
    assert not wait_until(lambda: not roots[0].is_mount(), 0.3)
    os.killpg(process.pid, signal.SIGINT)
    process.wait()
    assert gone(before, 2) == frozenset()


def test_a_helper_that_is_told_to_stop_undoes_everything(
    image_factory: ImageBuilder, holder: list[subprocess.Popen[str]]
) -> None:
    before = snapshot()
    process, _ = start_holder(holder, "hold", image_factory(fstype="ext4"))
    helper = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
    os.kill(helper, signal.SIGTERM)
    # The helper itself stays as a zombie until its parent ends, but that is no process any more.
    assert gone(before, 2) == frozenset()


def test_a_busy_unmount_names_who_holds_it_and_succeeds_later(
    image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    pending = mounted_image(image_factory(fstype="ext4", content={"held.txt": "x"}))
    image = pending.__enter__()
    root = image.root
    with (root / "held.txt").open(), pytest.raises(TeardownError) as caught:
        image.unmount()
    text = str(caught.value)
    assert f"pid {os.getpid()}" in text
    assert "held.txt" in text
    assert any(entry.target == root for entry in mounts())
    pending.close()
    assert not any(entry.target == root for entry in mounts())


def mount_over(point: Path, *arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments), str(point)], check=True)


@contextmanager
def foreign_mount(point: Path) -> Iterator[None]:
    """Somebody else's file system at ``point`` while the block runs."""
    mount_over(point, "-t", "tmpfs", "foreign")
    try:
        yield
    finally:
        subprocess.run(["umount", point], check=True)


@pytest.mark.needs("root")
def test_what_is_mounted_over_a_mount_is_named_and_left_alone(
    image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    pending = mounted_image(image_factory(fstype="ext4"))
    root = pending.__enter__().root
    with foreign_mount(root):
        with pytest.raises(TeardownError, match="another file system is mounted over it; unmount that first"):
            pending.close()
        assert [entry.source for entry in mounts() if entry.target == root][1:] == ["foreign"]
    pending.close()
    assert not root.exists()


@pytest.mark.needs("root")
def test_what_is_mounted_in_the_place_of_a_mount_is_left_alone(
    image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    pending = mounted_image(image_factory(fstype="ext4"))
    root = pending.__enter__().root
    subprocess.run(["umount", root], check=True)
    with foreign_mount(root):
        with pytest.raises(TeardownError, match="something is mounted there"):
            pending.close()
        assert [entry.source for entry in mounts() if entry.target == root] == ["foreign"]
    pending.close()
    assert not root.exists()


@pytest.mark.needs("root")
def test_an_image_that_is_mounted_over_itself_is_unmounted_wholly(
    image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    with mounted_image(image_factory(fstype="ext4")) as image:
        mount_over(image.root, "--bind", image.root)
    assert not image.root.exists()
    assert not image.mounted


@pytest.fixture
def served(image_factory: ImageBuilder, tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """An image on a FUSE file system, and the process that serves it."""
    file = tmp_path / "served.img"
    file.touch()
    disk = f"driver=raw,node-name=disk,file.driver=file,file.filename={image_factory(fstype='ext4')}"
    export = f"type=fuse,id=served,node-name=disk,mountpoint={file},writable=on"
    server = subprocess.Popen(["qemu-storage-daemon", "--blockdev", disk, "--export", export])
    assert wait_until(lambda: file.stat().st_size > 0, 10)
    yield file, server
    server.kill()
    server.wait()
    subprocess.run(["umount", file], check=True)


@pytest.mark.needs("root", "qemu", "fuse")
def test_an_image_whose_file_server_has_died_is_let_go_of(
    served: tuple[Path, subprocess.Popen[bytes]], mounted_image: MountFactory
) -> None:
    file, server = served
    pending = mounted_image(file)
    pending.__enter__()
    server.kill()
    server.wait()
    with pytest.raises(TeardownError, match=r"unlock the image: .*Transport endpoint is not connected"):
        pending.close()
    pending.close()


def test_failures_of_one_mount_do_not_keep_the_others(pytester: pytest.Pytester, image_factory: ImageBuilder) -> None:
    disk = image_factory(fstype="ext4", content={"f": ""})
    pytester.makepyfile(
        f"""
        import os

        roots = []
        held = []

        def test_holds_a_file_open(mounted_image):
            roots.extend(mounted_image({str(disk)!r}).__enter__().root for _ in range(3))
            held.append(open(roots[1] / "f"))

        def test_the_other_two_are_gone():
            assert [root.is_mount() for root in roots] == [False, True, False]
            held.pop().close()
        """
    )
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*TeardownError*", "*is busy; held by*"])
