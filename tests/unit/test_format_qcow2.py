from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_imagemount.errors import ImageMountError, ImageUnsafe

from .contents import MIB, Qcow2, look, qcow2_with_bitmaps, refusal


@pytest.mark.parametrize("version", [2, 3])
def test_qcow2_of_both_versions(version: int) -> None:
    image = look(Qcow2(version=version).build())
    assert (image.format, image.virtual_size, image.file_size) == ("qcow2", MIB, 0x60000)


def test_qcow2_with_internal_snapshots() -> None:
    assert look(Qcow2(snapshots=2, snapshots_offset=0x50000).build()).format == "qcow2"


@pytest.mark.parametrize("version", [0, 4, 99, 0xFFFFFFFF])
def test_qcow2_of_a_version_to_come(version: int) -> None:
    assert f"qcow2 version {version} is not known" in refusal(Qcow2(version=version).build())


@pytest.mark.parametrize("length", [5, 71, 72, 103])
def test_qcow2_truncated_in_its_header(length: int) -> None:
    assert "truncated" in refusal(Qcow2().build()[:length])


def test_qcow2_of_four_bytes() -> None:
    assert "truncated" in refusal(b"QFI\xfb")


@pytest.mark.parametrize("length", [104, 0x10000, 0x20000, 0x30000])
def test_qcow2_truncated_in_its_tables(length: int) -> None:
    assert "truncated: its" in refusal(Qcow2().build()[:length])


@pytest.mark.parametrize("length", [0x40000, 0x40001, 0x4FFFF])
def test_qcow2_truncated_in_an_l2_table(length: int) -> None:
    assert "L2 table of it lies at byte 262144" in refusal(Qcow2().build()[:length])


def test_qcow2_truncated_in_its_data() -> None:
    assert "data of it lies at byte 327680, the file ends at byte 327680" in refusal(Qcow2().build()[:0x50000])


def test_qcow2_whose_last_cluster_is_short_is_whole() -> None:
    assert look(Qcow2().build()[:0x50200]).format == "qcow2"


@pytest.mark.parametrize("l2", [[0], [1], [0x50000 | 1]], ids=["nothing", "zeros", "zeros with a place"])
def test_qcow2_with_a_cluster_that_is_counted_but_never_read_is_whole(l2: list[int]) -> None:
    assert look(Qcow2(l2=l2).build()[:0x50000]).format == "qcow2"


def test_qcow2_truncated_in_compressed_data() -> None:
    entry = 1 << 62 | 0x50123
    assert "data of it lies at byte 327971" in refusal(Qcow2(l2=[entry]).build()[:0x50000])
    assert look(Qcow2(l2=[entry]).build()[:0x50200]).format == "qcow2"


def test_qcow2_truncated_with_subclusters() -> None:
    whole = Qcow2(incompatible=1 << 4, l2=[0x50000 | 1 << 63, 1, 0x50000 | 1 << 63, 1 << 32])
    assert look(whole.build()).format == "qcow2"
    assert "data of it" in refusal(whole.build()[:0x50000])
    whole.l2 = [0x50000 | 1 << 63, 1 << 32]
    assert look(whole.build()[:0x50000]).format == "qcow2"


@pytest.mark.parametrize("bits", [0, 8, 22, 63, 0xFFFFFFFF])
def test_qcow2_with_absurd_clusters(bits: int) -> None:
    assert f"2^{bits} bytes a cluster" in refusal(Qcow2(cluster_bits=bits).build())


@pytest.mark.parametrize("field_name", ["l1_offset", "refcount_offset"])
@pytest.mark.parametrize("offset", [0, 0x30008, 1 << 40, (1 << 64) - 0x10000])
def test_qcow2_with_a_table_elsewhere(field_name: str, offset: int) -> None:
    wrong: dict[str, Any] = {field_name: offset}
    assert "table" in refusal(Qcow2(**wrong).build())


@pytest.mark.parametrize(
    "wrong",
    [
        {"l1_entries": 0},
        {"l1_entries": 0xFFFFFFFF},
        {"size": 1 << 62},
        {"size": (1 << 64) - 1},
        {"refcount_clusters": 0},
        {"refcount_clusters": 0xFFFFFFFF},
        {"refcount_order": 7},
        {"header_length": 103},
        {"header_length": 72},
        {"header_length": 0xFFFFFFF8},
        {"snapshots": 70000},
        {"snapshots": 5, "snapshots_offset": 1 << 40},
    ],
    ids=str,
)
def test_qcow2_with_absurd_numbers(wrong: dict[str, Any]) -> None:
    refusal(Qcow2(**wrong).build())


def test_qcow2_with_an_extension_that_is_not_known_is_fine() -> None:
    assert look(Qcow2(extensions=[(0x12345678, b"x" * 9), (0x23852875, b"y" * 24)]).build()).format == "qcow2"


def test_qcow2_with_an_extension_that_runs_out_of_the_header() -> None:
    image = bytearray(Qcow2().build())
    image[104:112] = struct.pack(">II", 0x6803F857, 0xFFFFFFF0)
    assert "extension 0x6803f857 of 4294967280 bytes" in refusal(bytes(image))


def test_qcow2_with_bitmaps_is_fine() -> None:
    assert look(qcow2_with_bitmaps(2, 16)).format == "qcow2"
    assert look(qcow2_with_bitmaps(1024, 0)).format == "qcow2"  # 128 KiB each


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (qcow2_with_bitmaps(1025, 0), "its 1025 bitmaps take 134348800 bytes of memory"),
        (qcow2_with_bitmaps(3, 16, length=48), "no room for 3"),
        (qcow2_with_bitmaps(1, 16, length=1 << 40), "directory of bitmaps has 1099511627776 bytes"),
        (qcow2_with_bitmaps(1, 16, place=0x60000), "truncated: its directory of bitmaps"),
        (Qcow2(autoclear=1, extensions=[(0x23852875, b"short")]).build(), "bitmaps extension has 5 bytes"),
    ],
    ids=["too much memory", "no room", "absurd length", "outside", "short"],
)
def test_qcow2_with_bitmaps_that_cannot_be(image: bytes, reason: str) -> None:
    assert reason in refusal(image)


def test_qcow2_of_no_size() -> None:
    assert "0 bytes" in refusal(Qcow2(size=0).build())


def test_qcow2_with_unknown_features_names_the_bits() -> None:
    names = b"".join(
        struct.pack(">BB46s", kind, bit, name) for kind, bit, name in [(0, 9, b"shiny\x1b"), (1, 40, b"x")]
    )
    reason = refusal(Qcow2(incompatible=1 << 9 | 1 << 40 | 1, extensions=[(0x6803F857, names)]).build())
    assert r"incompatible bits 9 (shiny\x1b), 40" in reason
    assert "(x)" not in reason


def test_qcow2_that_is_dirty_compressed_or_extended_is_fine() -> None:
    assert look(Qcow2(incompatible=1).build()).format == "qcow2"
    assert look(Qcow2(incompatible=1 << 3).build()).format == "qcow2"


def test_qcow2_marked_corrupt() -> None:
    assert "marked as corrupt" in refusal(Qcow2(incompatible=2).build())


@pytest.mark.parametrize(("method", "name"), [(1, "AES"), (2, "LUKS"), (3, "method 3")])
def test_qcow2_that_is_encrypted(method: int, name: str) -> None:
    assert name in refusal(Qcow2(encryption=method).build())


@pytest.mark.parametrize("version", [2, 3])
def test_qcow2_with_a_backing_file_names_it(version: int) -> None:
    image = bytearray(Qcow2(version=version, backing_offset=512, backing_size=11).build())
    image[512:523] = b"/etc/\x1bshad\xff"
    assert r"backing file is another file, '/etc/\\x1bshad\\xff'" in refusal(bytes(image), ImageUnsafe)


@pytest.mark.parametrize(("offset", "size"), [(1 << 40, 9), (512, 1024), (512, 0xFFFFFFFF), ((1 << 64) - 1, 5)])
def test_qcow2_with_an_absurd_backing_file(offset: int, size: int) -> None:
    refusal(Qcow2(backing_offset=offset, backing_size=size).build())


@pytest.mark.parametrize("bit", [0, 1 << 2])
def test_qcow2_with_an_external_data_file_names_it(bit: int) -> None:
    image = Qcow2(incompatible=bit, extensions=[(0xE2792ACA, b"raw"), (0x44415441, b"/dev/sda")])
    assert "external data file is another file, '/dev/sda'" in refusal(image.build(), ImageUnsafe)


def test_qcow2_with_an_external_data_file_that_it_does_not_name() -> None:
    assert "a file that it does not name" in refusal(Qcow2(incompatible=1 << 2).build(), ImageUnsafe)


@given(
    cluster_bits=st.integers(9, 21),
    numbers=st.lists(st.integers(0, (1 << 64) - 1), min_size=4, max_size=64),
    order=st.integers(0, 6),
    extended=st.booleans(),
    cut=st.integers(0, 0x60000),
)
@settings(max_examples=150, deadline=4000)
def test_any_qcow2_tables_do_no_harm(
    cluster_bits: int, numbers: list[int], order: int, extended: bool, cut: int
) -> None:
    image = Qcow2(
        cluster_bits=cluster_bits,
        size=numbers[0] % (8 << 20),
        l1_entries=numbers[1] % 600,
        l1_offset=numbers[2] % 0x60000 >> cluster_bits << cluster_bits,
        refcount_order=order,
        incompatible=16 if extended else 0,
        l1=numbers[3:],
        l2=numbers,
    )
    try:
        look(image.build()[: cut + 104])
    except ImageMountError:
        return
