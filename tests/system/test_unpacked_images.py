"""Compressed and split images, mounted."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.errors import ImageUnreadable
from pytest_imagemount.programs import environment, find_program, run

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_imagemount.factory import ImageFactory
    from pytest_imagemount.plugin import MountFactory

pytestmark = pytest.mark.needs("privileged", "loop", "ext4", "mke2fs")

NOISE = os.urandom(100_000)
PROGRAMS = [
    "gzip",
    "xz",
    "bzip2",
    pytest.param("zstd", marks=pytest.mark.needs("zstd")),
    pytest.param("lz4", marks=pytest.mark.needs("lz4")),
]


@pytest.fixture(scope="module")
def raw(image_factory: ImageFactory) -> Path:
    content = {"etc/hostname": "web01\n", "noise": NOISE}
    return image_factory(table="gpt", partitions=[{"fstype": "ext4", "content": content}])


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/pytest-imagemount"


def compress(path: Path, program: str, target: Path) -> Path:
    command = find_program(program)
    assert command
    with path.open("rb") as source, target.open("wb") as output:
        subprocess.run([command, "-c"], stdin=source, stdout=output, check=True, env=environment())
    return target


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("mode", ["ro", pytest.param("overlay", marks=pytest.mark.needs("qemu", "fuse"))])
def test_a_compressed_image_is_mounted(
    program: str, mode: str, raw: Path, tmp_path: Path, mounted_image: MountFactory, cache: Path
) -> None:
    packed = compress(raw, program, tmp_path / "disk.img")
    before = hashlib.sha256(packed.read_bytes()).hexdigest()
    for _ in range(2):
        with mounted_image(packed, 1, mode=mode) as image:
            assert (image.source, image.format) == (packed, "raw")
            assert (image / "noise").read_bytes() == NOISE
            if mode == "overlay":
                (image / "noise").write_bytes(b"changed")
    assert hashlib.sha256(packed.read_bytes()).hexdigest() == before
    assert len(list(cache.glob("*.img"))) == 1


@pytest.mark.needs("qemu", "qemu-img", "fuse")
def test_the_format_is_that_of_what_it_holds(raw: Path, tmp_path: Path, mounted_image: MountFactory) -> None:
    qcow2 = tmp_path / "disk.qcow2"
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(qcow2)])
    packed = compress(qcow2, "gzip", tmp_path / "disk")
    for format in (None, "qcow2"):
        with mounted_image(packed, 1, format=format) as image:
            assert image.format == "qcow2"
            assert (image / "noise").read_bytes() == NOISE


@pytest.mark.parametrize("packed", [False, True])
def test_a_split_image_is_mounted(packed: bool, raw: Path, tmp_path: Path, mounted_image: MountFactory) -> None:
    data = (compress(raw, "gzip", tmp_path / "packed") if packed else raw).read_bytes()
    size = len(data) // 3 + 1
    for number in range(3):
        (tmp_path / f"disk.img.{number:03}").write_bytes(data[number * size : (number + 1) * size])
    with mounted_image(tmp_path / "disk.img.000", 1) as image:
        assert (image / "noise").read_bytes() == NOISE
    with pytest.raises(ImageUnreadable, match="use mode='overlay'"):
        mounted_image(tmp_path / "disk.img.000", 1, mode="rw").__enter__()


def test_it_is_unpacked_anew_when_it_changed(
    raw: Path, image_factory: ImageFactory, tmp_path: Path, mounted_image: MountFactory
) -> None:
    other = image_factory(fstype="ext4", content={"etc/hostname": "web02\n"})
    packed = compress(raw, "gzip", tmp_path / "disk.img.gz")
    with mounted_image(packed, 1) as first:
        compress(other, "gzip", packed)
        with mounted_image(packed) as second:
            assert (second / "etc/hostname").read_text() == "web02\n"
        assert (first / "noise").read_bytes() == NOISE


TESTS = """
    import pytest
    from pytest_imagemount import progress

    progress._QUIET = progress._REDRAW = 0.0

    @pytest.mark.parametrize("number", range(4))
    def test_it(mounted_image, number):
        with mounted_image("disk.img", 1) as image:
            assert (image / "etc/hostname").read_text() == "web01\\n"
"""


@pytest.fixture
def project(pytester: pytest.Pytester, raw: Path) -> pytest.Pytester:
    pytester.makepyfile(TESTS)
    compress(raw, "gzip", pytester.path / "disk.img")
    return pytester


def test_workers_share_what_one_of_them_unpacked(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("-n2", "--imagemount-cache=kept")
    result.assert_outcomes(passed=4)
    assert sorted(path.suffix for path in (project.path / "kept").iterdir()) == [".img", ".json"]


def test_an_image_past_the_limit_fails_the_test_and_leaves_nothing(project: pytest.Pytester) -> None:
    result = project.runpytest_subprocess("--imagemount-cache=kept", "--imagemount-unpack-limit=1M", "-k0")
    result.assert_outcomes(failed=1, deselected=3)
    result.stdout.fnmatch_lines(["*UnpackFailed: image 'disk.img' cannot be unpacked: *more than 1 MiB*"])
    assert list((project.path / "kept").iterdir()) == []


def test_a_terminal_shows_a_bar_and_wipes_it(project: pytest.Pytester) -> None:
    keeper, terminal = pty.openpty()
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k0"]
    environment = {**os.environ, "COLUMNS": "120", "TERM": "xterm"}
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment)
    os.close(terminal)
    output = b""
    while True:
        try:
            output += os.read(keeper, 4096)
        except OSError:  # EIO: the other end is closed
            break
    os.close(keeper)
    assert process.wait() == 0, output
    assert re.search(rb"\rimagemount: unpacking disk\.img \[#*-*\] +\d+ % of ", output)
    assert re.search(rb"\r +\r?.*1 passed", output, re.DOTALL)


def test_a_missing_program_can_be_skipped(project: pytest.Pytester) -> None:
    project.makeconftest("from pytest_imagemount import compression\ncompression.find_program = lambda name: None\n")
    (project.path / "disk.img").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    project.runpytest_subprocess("--imagemount-cache=kept", "-k0").assert_outcomes(failed=1, deselected=3)
    result = project.runpytest_subprocess("--imagemount-cache=kept", "-k0", "--imagemount-unavailable=skip", "-rs")
    result.assert_outcomes(skipped=1, deselected=3)
    result.stdout.fnmatch_lines(["*there is no program zstd; install package zstd*"])
