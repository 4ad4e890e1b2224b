"""dm-verity: hashes made by veritysetup, found in every place, and closed where data do not fit them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.errors import RequestInvalid, VolumeInvalid

from .volume_images import MIB, blank, run, sha256, write_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_imagemount.plugin import AttachFactory, MountFactory

    ImageBuilder = Callable[..., Path]

pytestmark = pytest.mark.needs("root", "loop", "device-mapper", "veritysetup", "ext4", "mke2fs")

MARK = b"the data that a test damages" * 50_000


def make_hashes(data: Path, hashes: Path, *options: str) -> str:
    """Write the hash tree of ``data`` to ``hashes``; the root hash."""
    told = run("veritysetup", "format", *options, data, hashes)
    found = re.search(r"Root hash:\s+([0-9a-f]+)", told)
    assert found is not None
    return found[1]


@pytest.fixture(scope="module")
def data(image_factory: ImageBuilder) -> Path:
    content = {"name": "verified", "large": MARK}
    return image_factory(fstype="ext4", content=content, size="8M", label="root", mkfs_options=["-b", "4096"])


@pytest.fixture(scope="module")
def verity(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The hash tree of ``data``, and its root hash."""
    hashes = tmp_path_factory.mktemp("verity") / "hashes"
    return hashes, make_hashes(data, hashes)


def test_hashes_in_a_second_image_are_found(
    data: Path, verity: tuple[Path, str], mounted_image: MountFactory, attached_image: AttachFactory
) -> None:
    hashes, root = verity
    before = sha256(data), sha256(hashes)
    with mounted_image([data, hashes], verity=root) as image:
        assert (image / "name").read_text() == "verified"
        assert (image / "large").read_bytes() == MARK
        assert image.device.startswith("/dev/dm-")
        mapping = (Path("/sys/block") / Path(image.device).name / "dm/name").read_text().strip()
        assert " verity " in run("dmsetup", "table", mapping)
    with attached_image([data, hashes], verity=root.upper()) as device:
        assert device.path.read_bytes() == data.read_bytes()
    assert (sha256(data), sha256(hashes)) == before


def test_partitions_are_found_by_the_root_hash(
    data: Path, verity: tuple[Path, str], image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    hashes, root = verity
    other = {"fstype": "ext4", "content": {"name": "other"}}
    halves = {"uuid": root[:32]}, {"uuid": root[32:]}
    parts = [
        {"raw": data.read_bytes(), "type": "root-x86-64"},
        {"raw": hashes.read_bytes(), "type": "root-x86-64-verity"},
    ]
    named = [{**part, **half} for part, half in zip(parts, halves, strict=True)]
    disk = image_factory(table="gpt", partitions=[other, *named, {"raw": hashes.read_bytes()}])
    before = sha256(disk)
    for partition in (None, "auto", 2):
        with mounted_image(disk, partition, verity=root) as image:
            assert (image / "name").read_text() == "verified"
            assert image.partition == 2
    assert sha256(disk) == before


def test_a_hash_partition_is_found_by_its_type_or_named(
    data: Path, verity: tuple[Path, str], image_factory: ImageBuilder, mounted_image: MountFactory
) -> None:
    hashes, root = verity
    parts = [
        {"raw": data.read_bytes(), "type": "root-x86-64"},
        {"raw": hashes.read_bytes(), "type": "usr-x86-64-verity"},
        {"raw": hashes.read_bytes(), "type": "root-x86-64-verity"},
    ]
    disk = image_factory(table="gpt", partitions=parts)
    for wanted in (root, f"{root}:2", f"{root}:3"):
        with mounted_image(disk, 1, verity=wanted) as image:
            assert (image / "name").read_text() == "verified"
    unclear = image_factory(table="gpt", partitions=[parts[0], *[{"raw": hashes.read_bytes()}] * 2])
    with pytest.raises(VolumeInvalid, match="partition 2, partition 3"), mounted_image(unclear, 1, verity=root):
        pass


def test_hashes_behind_the_data_are_found_where_the_caller_says(
    data: Path, mounted_image: MountFactory, tmp_path: Path
) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(data.read_bytes())
    size = data.stat().st_size
    root = make_hashes(disk, disk, f"--hash-offset={size}", f"--data-blocks={size // 4096}")
    with mounted_image(disk, verity=f"{root}@{size}") as image:
        assert (image / "name").read_text() == "verified"


def test_damaged_data_are_an_error_and_never_read(
    data: Path, verity: tuple[Path, str], mounted_image: MountFactory, tmp_path: Path
) -> None:
    hashes, root = verity
    damaged = tmp_path / "damaged.raw"
    damaged.write_bytes(data.read_bytes())
    # In the middle, where nobody looks for a superblock.
    write_at(damaged, data.read_bytes().index(MARK[:4096]) + len(MARK) // 2, b"X")
    with mounted_image([damaged, hashes], verity=root) as image:
        assert (image / "name").read_text() == "verified"
        with pytest.raises(OSError, match="Input/output error"):
            (image / "large").read_bytes()
    write_at(damaged, 1024, b"X")
    with pytest.raises(VolumeInvalid, match="root hash does not fit"), mounted_image([damaged, hashes], verity=root):
        pass


def test_a_wrong_root_hash_and_other_mistakes_are_told(
    data: Path, verity: tuple[Path, str], mounted_image: MountFactory, image_factory: ImageBuilder
) -> None:
    hashes, root = verity
    wrong = root[:-1] + ("0" if root[-1] != "0" else "1")
    with pytest.raises(VolumeInvalid, match="root hash does not fit"), mounted_image([data, hashes], verity=wrong):
        pass
    with pytest.raises(VolumeInvalid, match=r"sha256.*32 digits"), mounted_image([data, hashes], verity=root[:32]):
        pass
    with pytest.raises(VolumeInvalid, match="no further image"), mounted_image(data, verity=root):
        pass
    for text in ("", "xyz", root + "@", root + ":x", root[:31]):
        with (
            pytest.raises(RequestInvalid, match="root hash in hexadecimal"),
            mounted_image([data, hashes], verity=text),
        ):
            pass
    for mode in ("rw", "overlay"):
        with (
            pytest.raises(RequestInvalid, match="can only be read"),
            mounted_image([data, hashes], verity=root, mode=mode),
        ):
            pass


@pytest.mark.parametrize(
    "options", [["--hash=sha512"], ["--data-block-size=512", "--hash-block-size=512"], ["--salt=-"]]
)
def test_other_hashes_and_block_sizes(
    options: list[str], data: Path, mounted_image: MountFactory, tmp_path: Path
) -> None:
    hashes = tmp_path / "hashes"
    root = make_hashes(data, hashes, *options)
    with mounted_image([data, hashes], verity=root) as image:
        assert (image / "large").read_bytes() == MARK


def test_hashes_of_other_data_are_refused(
    verity: tuple[Path, str], mounted_image: MountFactory, tmp_path: Path
) -> None:
    hashes, root = verity
    with (
        pytest.raises(VolumeInvalid, match="are not those of"),
        mounted_image([blank(tmp_path / "small.raw", MIB), hashes], verity=root),
    ):
        pass
