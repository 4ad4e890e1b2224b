"""What was found in an image is remembered, and never taken for what is in another one."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.engine import findings as findings_module
from pytest_imagemount.engine.findings import Findings, Found
from pytest_imagemount.engine.image import Image, Layer, identify
from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.superblock import Superblock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WINDOW = Window(1 << 20, 4096)
EXT4, XFS = Superblock("ext4", "filesystem"), Superblock("xfs", "filesystem")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(bytes(4096))
    return path


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is far ahead: nothing was changed just now."""
    now = time.time
    monkeypatch.setattr("pytest_imagemount.engine.findings.time.time", lambda: now() + 60)


@contextmanager
def opened(path: Path) -> Iterator[Image]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield identify(fd, path.name)
    finally:
        os.close(fd)


def look(findings: Findings, path: Path, mode: str = "ro") -> Found:
    with opened(path) as image:
        return findings.of(image, mode)


@pytest.mark.usefixtures("later")
def test_what_is_known_of_an_image_is_known_the_next_time(disk: Path) -> None:
    findings = Findings()
    assert look(findings, disk).table(lambda: None) is None
    assert look(findings, disk).superblock(WINDOW, lambda: EXT4) == EXT4
    again = look(findings, disk, "overlay")
    assert again.knows_table
    assert again.table(_never) is None
    assert again.superblock(WINDOW, _never) == EXT4
    assert again.superblock(replace(WINDOW, offset=0), lambda: None) is None


def _never() -> Any:
    raise AssertionError("it was read again")


def write(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x")


def write_and_set_the_times_back(path: Path) -> None:
    before = path.stat()
    write(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_a_copy(path: Path) -> None:
    before = path.stat()
    fresh = path.with_name("fresh")
    fresh.write_bytes(path.read_bytes())
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.rename(path)


@pytest.mark.usefixtures("later")
@pytest.mark.parametrize(
    "change", [write, write_and_set_the_times_back, replace_by_a_copy, lambda path: os.truncate(path, 8192)]
)
def test_nothing_is_known_of_an_image_that_has_changed(disk: Path, change: Any) -> None:
    findings = Findings()
    look(findings, disk).superblock(WINDOW, lambda: EXT4)
    time.sleep(0.02)  # the clock of the file system's stamps ticks each 10 ms at most
    change(disk)
    assert look(findings, disk).superblock(WINDOW, lambda: XFS) == XFS


def test_an_image_that_was_changed_just_now_is_not_remembered(disk: Path) -> None:
    findings = Findings()
    look(findings, disk).table(lambda: None)
    assert not look(findings, disk).knows_table


@pytest.mark.usefixtures("later")
def test_an_image_that_is_written_to_is_neither_remembered_nor_trusted(disk: Path) -> None:
    findings = Findings()
    look(findings, disk, "rw").table(lambda: None)
    assert not look(findings, disk).knows_table
    look(findings, disk).table(lambda: None)
    assert not look(findings, disk, "rw").knows_table


@pytest.mark.usefixtures("later")
def test_an_image_that_refers_to_others_is_not_remembered(disk: Path) -> None:
    findings = Findings()
    with opened(disk) as image:
        whole: Any = replace(image, layers=(Layer(None, image),))  # type: ignore[arg-type]
        findings.of(whole, "ro").table(lambda: None)
        assert not findings.of(whole, "ro").knows_table
        assert not findings.of(image, "ro").knows_table


@pytest.mark.usefixtures("later")
def test_a_format_that_is_insisted_on_makes_it_another_image(disk: Path) -> None:
    findings = Findings()
    with opened(disk) as image:
        findings.of(image, "ro").table(lambda: None)
        assert not findings.of(replace(image, format="qcow2"), "ro").knows_table


@pytest.mark.usefixtures("later")
def test_an_image_is_identified_once_and_bears_the_name_and_descriptor_of_now(disk: Path) -> None:
    findings = Findings()
    with opened(disk) as first:
        assert findings.identify(first.fd, None, "ro", lambda: first, name="one") is first
    with opened(disk) as second:
        found = findings.identify(second.fd, None, "ro", _never, name="two")
        assert found == replace(second, name="two")
        assert findings.identify(second.fd, "raw", "ro", lambda: second, name="two") is second


def test_what_a_partial_look_did_not_see_is_looked_at_again() -> None:
    found = Found()
    labelled = replace(EXT4, label="root")
    assert found.superblock(WINDOW, lambda: EXT4, whole=False) == EXT4
    assert found.superblock(WINDOW, _never, whole=False) == EXT4
    assert found.superblock(WINDOW, lambda: labelled) == labelled
    assert found.superblock(WINDOW, _never, whole=False) == labelled


@pytest.mark.usefixtures("later")
def test_only_the_latest_images_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings_module, "_MOST_IMAGES", 2)
    findings = Findings()
    disks = [tmp_path / name for name in "abc"]
    for path in disks:
        path.write_bytes(bytes(512))
        look(findings, path).table(lambda: None)
    assert [look(findings, path).knows_table for path in reversed(disks)] == [True, True, False]
