"""One cycle: image → mounted file system → nothing. The bare system calls are the floor that the others stand on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine import loop, syscalls
from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.undo import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_benchmark.fixture import BenchmarkFixture

    from pytest_imagemount.plugin import MountFactory

ROUNDS = 100
WINDOW = Window(1 << 20, 32 << 20)
FLAGS = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV


@pytest.fixture(scope="module")
def images(image_factory: Callable[..., Path]) -> dict[str, Path]:
    """The same disk in two formats: a GPT with one ext4 of 32 MiB at 1 MiB."""
    partitions = [{"fstype": "ext4", "size": WINDOW.size, "content": {"etc/hostname": "web01\n"}}]
    return {form: image_factory(format=form, table="gpt", partitions=partitions) for form in ("raw", "qcow2")}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "mounted"
    path.mkdir()
    yield str(path)
    path.rmdir()


def measure(benchmark: BenchmarkFixture, cycle: Callable[[], object], rounds: int = ROUNDS) -> None:
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        cycle, rounds=rounds, warmup_rounds=max(1, rounds // 10)
    )


@pytest.mark.benchmark(group="raw")
def bench_system_calls(benchmark: BenchmarkFixture, images: dict[str, Path], target: str) -> None:
    fd = os.open(images["raw"], os.O_RDONLY | os.O_CLOEXEC)

    def cycle() -> None:
        device = loop.attach(fd, WINDOW, image="raw", readonly=True)
        syscalls.mount(device.path, target, "ext4", FLAGS, "")
        device.arm()
        syscalls.umount2(target)
        device.detach()

    measure(benchmark, cycle)
    os.close(fd)


@pytest.mark.benchmark(group="raw")
def bench_fixture_raw(benchmark: BenchmarkFixture, images: dict[str, Path], mounted_image: MountFactory) -> None:
    def cycle() -> None:
        with mounted_image(images["raw"], 1):
            pass

    measure(benchmark, cycle)


@pytest.mark.benchmark(group="raw")
def bench_losetup_and_mount(benchmark: BenchmarkFixture, images: dict[str, Path], target: str) -> None:
    options = ["--offset", str(WINDOW.offset), "--sizelimit", str(WINDOW.size), "--read-only"]

    def cycle() -> None:
        device = output("losetup", "--find", "--show", *options, str(images["raw"]))
        output("mount", "-o", "ro,nosuid,nodev", device, target)
        output("umount", target)
        output("losetup", "--detach", device)

    measure(benchmark, cycle, ROUNDS // 2)


@pytest.mark.benchmark(group="raw")
def bench_mount_o_loop(benchmark: BenchmarkFixture, images: dict[str, Path], target: str) -> None:
    def cycle() -> None:
        place = f"ro,nosuid,nodev,loop,offset={WINDOW.offset},sizelimit={WINDOW.size}"
        output("mount", "-o", place, str(images["raw"]), target)
        output("umount", target)

    measure(benchmark, cycle, ROUNDS // 2)


@pytest.mark.benchmark(group="qcow2")
def bench_fixture_raw_beside_qcow2(
    benchmark: BenchmarkFixture, images: dict[str, Path], mounted_image: MountFactory
) -> None:
    bench_fixture_raw(benchmark, images, mounted_image)


@pytest.mark.benchmark(group="qcow2")
@pytest.mark.parametrize("backend", ["fuse", "nbd"])
def bench_fixture_qcow2(
    backend: str, benchmark: BenchmarkFixture, images: dict[str, Path], mounted_image: MountFactory
) -> None:
    if backend == "nbd" and not Path("/sys/module/nbd").is_dir():
        pytest.skip("this kernel has no nbd: run it in `imagemount lab`")

    def cycle() -> None:
        with mounted_image(images["qcow2"], 1, backend=backend):
            pass

    measure(benchmark, cycle)


@pytest.mark.benchmark(group="qcow2")
def bench_qemu_nbd_and_mount(benchmark: BenchmarkFixture, images: dict[str, Path], target: str) -> None:
    if not Path("/sys/module/nbd").is_dir():
        pytest.skip("this kernel has no nbd: run it in `imagemount lab`")
    window = f"driver=raw,offset={WINDOW.offset},size={WINDOW.size},file.driver=qcow2,file.file.driver=file"
    window += f",file.file.filename={images['qcow2']}"
    connected = Path("/sys/block/nbd0/pid")

    def cycle() -> None:
        output("qemu-nbd", "--connect=/dev/nbd0", "--read-only", "--image-opts", window)
        wait_until(connected.exists, 10)
        output("mount", "-o", "ro,nosuid,nodev", "/dev/nbd0", target)
        output("umount", target)
        output("qemu-nbd", "--disconnect", "/dev/nbd0")
        wait_until(lambda: not connected.exists(), 10)

    measure(benchmark, cycle, 10)


def output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
