"""Every format, as qemu-img writes it: the same name, size and dependencies as qemu-img says."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.engine.image import Image, identify
from pytest_imagemount.errors import ImageInvalid, ImageUnsafe
from pytest_imagemount.programs import run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.needs("qemu-img")

MIB = 1 << 20


def look(path: Path) -> Image:
    fd = os.open(path, os.O_RDONLY)
    try:
        return identify(fd, str(path))
    finally:
        os.close(fd)


def qemu_says(path: Path, format: str) -> Any:
    return json.loads(run(["qemu-img", "info", "--output=json", "-f", format, str(path)]))


@pytest.fixture
def create(tmp_path: Path) -> Callable[..., Path]:
    def create(format: str, *options: str, size: str = "24M", backing: Path | None = None) -> Path:
        path = tmp_path / f"{format}-{len(list(tmp_path.iterdir()))}.img"
        extra = ["-b", str(backing), "-F", "raw" if format != "vmdk" else "vmdk"] if backing else []
        chosen = ["-o", ",".join(options)] if options else []
        run(["qemu-img", "create", "-q", "-f", format, *chosen, *extra, str(path), *([] if backing else [size])])
        return path

    return create


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("raw", ()),
        ("qcow", ()),
        ("qcow2", ()),
        ("qcow2", ("compat=0.10",)),
        ("qcow2", ("cluster_size=512",)),
        ("qcow2", ("cluster_size=2M",)),
        ("qcow2", ("extended_l2=on",)),
        ("qcow2", ("compression_type=zstd",)),
        ("qcow2", ("lazy_refcounts=on", "refcount_bits=1")),
        ("qcow2", ("refcount_bits=64",)),
        ("qcow2", ("preallocation=metadata",)),
        ("qcow2", ("preallocation=falloc", "extended_l2=off")),
        ("qed", ()),
        ("vdi", ()),
        ("vdi", ("static=on",)),
        ("vhdx", ()),
        ("vhdx", ("subformat=fixed",)),
        ("vmdk", ()),
        ("vmdk", ("subformat=streamOptimized",)),
        ("vpc", ()),
        ("vpc", ("subformat=fixed",)),
        ("vpc", ("force_size=on",)),
        ("parallels", ()),
    ],
)
def test_a_new_image_is_what_qemu_says(create: Callable[..., Path], format: str, options: tuple[str, ...]) -> None:
    path = create(format, *options)
    image, said = look(path), qemu_says(path, format)
    assert image.format == said["format"] == format
    assert image.file_size == path.stat().st_size
    assert image.virtual_size in (said["virtual-size"], 0)
    assert image.virtual_size or format == "vpc"


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("qcow2", ()),
        ("qcow2", ("-c",)),
        ("qcow2", ("-o", "cluster_size=4k")),
        ("qcow2", ("-o", "extended_l2=on")),
        ("qcow2", ("-c", "-o", "compression_type=zstd,cluster_size=1M")),
        ("qcow", ()),
        ("qed", ()),
        ("vdi", ()),
        ("vhdx", ()),
        ("vmdk", ()),
        ("vmdk", ("-o", "subformat=streamOptimized")),
        ("vpc", ()),
        ("parallels", ()),
    ],
)
def test_a_converted_disk_is_what_qemu_says(tmp_path: Path, format: str, options: tuple[str, ...]) -> None:
    source, path = tmp_path / "source", tmp_path / "converted"
    source.write_bytes(bytes(MIB) + os.urandom(3 * MIB) + bytes(4 * MIB) + b"text " * 100_000 + bytes(1))
    os.truncate(source, 16 * MIB)
    run(["qemu-img", "convert", "-f", "raw", "-O", format, *options, str(source), str(path)])
    image, said = look(path), qemu_says(path, format)
    assert image.format == format
    assert image.virtual_size in (said["virtual-size"], 0)


@pytest.mark.parametrize("options", [(), ("-c",)], ids=["plain", "compressed"])
def test_a_truncated_qcow2_is_refused_although_qemu_reads_zeros(tmp_path: Path, options: tuple[str, ...]) -> None:
    source, path = tmp_path / "source", tmp_path / "disk.qcow2"
    source.write_bytes(os.urandom(4 * MIB))
    run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(source), str(path)])
    assert look(path).format == "qcow2"
    for length in (path.stat().st_size - (128 << 10), 2 * MIB, 512 << 10, 100):
        os.truncate(path, length)
        with pytest.raises(ImageInvalid, match="truncated"):
            look(path)


def test_a_qcow2_with_internal_snapshots_is_fine(create: Callable[..., Path]) -> None:
    path = create("qcow2")
    run(["qemu-img", "snapshot", "-c", "one", str(path)])
    run(["qemu-img", "snapshot", "-c", "two", str(path)])
    assert look(path).virtual_size == 24 * MIB


def test_a_resized_qcow2_is_fine(create: Callable[..., Path]) -> None:
    path = create("qcow2")
    run(["qemu-img", "resize", "-q", str(path), "40G"])
    assert look(path).virtual_size == 40 << 30


@pytest.mark.parametrize("format", ["qcow", "qcow2", "qed", "vmdk"])
def test_a_backing_file_is_named(create: Callable[..., Path], format: str) -> None:
    base = create("vmdk" if format == "vmdk" else "raw")
    path = create(format, backing=base)
    with pytest.raises(ImageUnsafe) as caught:
        look(path)
    assert str(base) in caught.value.reason
    said = qemu_says(path, format)
    assert said["backing-filename"] == str(base)


def test_a_rebased_qcow2_stands_alone(create: Callable[..., Path]) -> None:
    path = create("qcow2", backing=create("raw"))
    run(["qemu-img", "rebase", "-f", "qcow2", "-b", "", str(path)])
    assert look(path).format == "qcow2"


def test_an_external_data_file_is_named(create: Callable[..., Path], tmp_path: Path) -> None:
    path = create("qcow2", f"data_file={tmp_path}/data.raw", "data_file_raw=on")
    with pytest.raises(ImageUnsafe, match="external data file") as caught:
        look(path)
    assert f"{tmp_path}/data.raw" in caught.value.reason


@pytest.mark.parametrize("kind", ["monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat"])
def test_a_vmdk_of_several_files_names_them(create: Callable[..., Path], kind: str) -> None:
    path = create("vmdk", f"subformat={kind}")
    with pytest.raises(ImageUnsafe, match=r"-(flat|s001|f001)\.img"):
        look(path)
