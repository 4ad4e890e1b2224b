"""Headers written by hand, wrong in one respect each. What qemu-img writes is in test_formats_of_qemu."""

from __future__ import annotations

import contextlib
import json
import struct
import uuid
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_imagemount.errors import FormatMismatch, ImageInvalid, ImageMountError, ImageUnsafe
from pytest_imagemount.programs import run

from .contents import (
    MIB,
    OWN,
    VHDX_ITEMS,
    VHDX_PARAMETERS,
    VHDX_PARENT,
    VHDX_SIZE,
    WHOLE,
    Qcow2,
    bochs,
    cloop,
    dmg,
    dynamic_vhd,
    look,
    parallels,
    qcow,
    qed,
    refusal,
    vdi,
    vhd_footer,
    vhdx,
    vmdk,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_header_gives_format_and_size(name: str) -> None:
    format = name.split()[0]
    for asked in (None, format):
        image = look(WHOLE[name], asked)
        assert (image.format, image.virtual_size) == (format, MIB)
    assert look(WHOLE[name], "raw").format == "raw"


# The dynamic VHD and the VHDX of these builders are too bare for qemu; those that it writes itself are tested instead.
_FOR_QEMU = [name for name in WHOLE if name != "vpc" and not name.startswith("vhdx")]


@pytest.mark.needs("qemu-img")
@pytest.mark.parametrize("name", _FOR_QEMU)
def test_qemu_takes_what_the_builders_write_and_finds_the_same_size(tmp_path: Path, name: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(WHOLE[name])
    said = json.loads(run(["qemu-img", "info", "--output=json", "-f", name.split()[0], str(path)]))
    assert said["virtual-size"] == MIB


@pytest.mark.parametrize("name", [name for name in WHOLE if not name.startswith(("qcow2", "vhdx"))])
def test_a_header_cut_anywhere_is_an_error_of_ours_or_raw(name: str) -> None:
    content = WHOLE[name]
    for length in [*range(1, min(len(content), 600)), len(content) - 1]:
        with contextlib.suppress(ImageInvalid):
            assert look(content[:length]).file_size == length


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (qcow(backing=b"/etc/passwd"), "'/etc/passwd'"),
        (qed(1, name=b"/etc/passwd"), "'/etc/passwd'"),
        (qed(5, name=b""), "does not name"),
        (qed(0, name=b"hidden"), "'hidden'"),
        (OWN.encode(), "any name.vmdk"),
        (b'# c\r\n\n  # d\nversion = 2\nRW 1 FLAT "/dev/sda" 0\n', "'/dev/sda'"),
        (b"version=1\n", "does not name"),
        (vmdk(OWN.replace("ffffffff", "12345678")), "parent disk"),
        (vmdk(OWN + 'parentFileNameHint="/etc/passwd"\n'), "parent disk is another file, '/etc/passwd'"),
        (vmdk(OWN + 'RW 5 SPARSE "two.vmdk"\n'), "any name.vmdk, two.vmdk"),
        (vmdk('RW 5 FLAT "/dev/sda" 0\n'), "'/dev/sda'"),
        (vmdk('rw 5 VmfsRaw "/dev/sda"\n'), "'/dev/sda'"),
        (vmdk(OWN + '\0\0\0RW 5 FLAT "/dev/sda" 0\n'), "/dev/sda"),
        (vmdk(OWN + 'parentFileNameHint="/dev/sda"', at=60), "/dev/sda"),
        (vmdk(OWN, sectors=0), "does not name"),
        (vmdk('parentFileNameHint="/dev/sda"', magic=b"COWD"), "/dev/sda"),
        (dynamic_vhd(4, "C:\\\x1bparent.vhd"), r"C:\\\\x1bparent.vhd"),
        (vdi(kind=4), "does not name"),
        (vdi(parent=uuid.UUID(int=0xAB).bytes_le), "VDI 00000000-0000-0000-0000-0000000000ab"),
        (vhdx(VHDX_ITEMS | {VHDX_PARAMETERS: struct.pack("<II", 1 << 25, 2)}), "does not name"),
        (
            vhdx(
                VHDX_ITEMS
                | {
                    VHDX_PARENT: bytes(18)
                    + struct.pack("<HIIHH", 1, 32, 58, 26, 12)
                    + "relative_path".encode("utf-16-le")
                    + "b\x1b.vhd".encode("utf-16-le")
                }
            ),
            r"b\\x1b.vhd",
        ),
    ],
)
def test_an_image_that_names_another_file_is_unsafe(content: bytes, wanted: str) -> None:
    assert wanted in refusal(content, ImageUnsafe)


def test_a_second_region_table_cannot_smuggle_a_parent_in() -> None:
    image = bytearray(vhdx(VHDX_ITEMS, tables=(192 << 10, 256 << 10)))
    image += bytes(MIB)
    image[(256 << 10) + 32 : (256 << 10) + 40] = struct.pack("<Q", 2 * MIB)
    other = vhdx(VHDX_ITEMS | {VHDX_PARAMETERS: struct.pack("<II", 1 << 25, 2)})
    image[2 * MIB :] = other[MIB:]
    refusal(bytes(image), ImageUnsafe)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (qcow(cluster_bits=40), "2^40 bytes a cluster"),
        (qcow(size=0), "virtual size of 0"),
        (qcow(size=(1 << 64) - 1), "truncated: its L1 table"),
        (qcow(encryption=1), "encrypted"),
        (qcow(backing=b"x" * 2000), "2000 bytes long"),
        (qed(1 << 9), "bits 9"),
        (qed(cluster=1000), "1000 bytes a cluster"),
        (qed(table=1 << 20), "clusters a table"),
        (qed()[:0x2800], "truncated: its L1 table"),
        (vmdk(OWN, directory=1 << 50), "truncated: its grain directory"),
        (vmdk(OWN, directory=(1 << 64) - 1), "footer"),
        (vmdk(OWN, sectors=1 << 60), "virtual size"),
        (vmdk(OWN, version=9), "VMDK version 9"),
        (vmdk(OWN, grain=100), "100 sectors a grain"),
        (dynamic_vhd(cookie=b"somebody"), "dynamic disk header"),
        (dynamic_vhd(7), "disk type 7"),
        (dynamic_vhd()[:-512], "footer is missing"),
        (dynamic_vhd()[:1000], "truncated: its VHD dynamic disk header"),
        (vhdx({}), "gives no size"),
        (vhdx(VHDX_ITEMS, tables=()), "region tables"),
        (vhdx(VHDX_ITEMS)[: 200 << 10], "truncated"),
        (vhdx(VHDX_ITEMS)[:MIB], "truncated: its VHDX metadata"),
        (vhdx(VHDX_ITEMS | {VHDX_SIZE: b"\xff" * 8}), "virtual size"),
        (vdi(version=0x20000), "version 2.0"),
        (vdi(sector=4096), "4096 bytes a sector"),
        (vdi()[:400], "truncated: its VDI header"),
        (vdi()[:514], "truncated: its VDI block map"),
        (parallels(version=3), "version 3"),
        (parallels(tracks=0), "0 sectors"),
        (parallels()[:70], "truncated"),
        (parallels(sectors=1 << 60), "virtual size"),
        (bochs(kind=b"Undoable"), "another kind"),
        (bochs(version=7), "version 0x7"),
        (bochs()[:100], "truncated"),
        (cloop(block=513), "513 bytes a block"),
        (cloop(blocks=1 << 31), "truncated: its cloop offset table"),
    ],
)
def test_a_header_that_is_wrong_says_in_what(content: bytes, reason: str) -> None:
    assert reason in refusal(content)


@pytest.mark.parametrize(
    ("content", "table"),
    [
        (qcow(size=1 << 48), "L1 table"),
        (qed(cluster=1 << 26, table=16), "L1 table"),
        (vdi(blocks=1 << 29), "VDI block map"),
        (parallels(entries=1 << 29), "Parallels block table"),
        (bochs(entries=1 << 30), "Bochs catalog"),
        (cloop(blocks=1 << 29), "cloop offset table"),
        (dynamic_vhd(entries=1 << 29), "VHD block table"),
        (vhdx(VHDX_ITEMS, block_table=3 << 30), "VHDX block table"),
        (vhdx(VHDX_ITEMS, tables=(256 << 10,), block_table=3 << 30), "VHDX block table"),
        (vhdx(VHDX_ITEMS, log=3 << 30), "VHDX log"),
    ],
    ids=["qcow", "qed", "vdi", "parallels", "bochs", "cloop", "vpc", "vhdx", "vhdx of the second table", "vhdx log"],
)
def test_a_file_of_holes_cannot_make_qemu_read_gigabytes_of_table(content: bytes, table: str) -> None:
    reason = refusal(content, length=1 << 40)
    assert reason.startswith(f"its {table} has ")
    assert reason.endswith(" is the most")


@pytest.mark.parametrize(
    "content",
    [
        bytes(2 * MIB) + vhd_footer(2, MIB),
        bytes(MIB) + vhd_footer(3, MIB),
        bytes(MIB) + vhd_footer(4, MIB),
        bytes(MIB) + vhd_footer(2, MIB, data_offset=0),
        bytes(MIB) + vhd_footer(2, MIB)[:100] + b"\1" + vhd_footer(2, MIB)[101:],
    ],
    ids=["another size", "dynamic", "differencing", "with a header", "checksum"],
)
def test_a_raw_disk_that_ends_like_a_vhd_is_raw(content: bytes) -> None:
    assert look(content).format == "raw"


def test_a_fixed_vhd_with_a_doubtful_footer_is_one_when_the_caller_says_so() -> None:
    doubtful = bytes(2 * MIB) + vhd_footer(2, MIB)
    assert look(doubtful, "vhd").format == "vpc"
    with pytest.raises(ImageUnsafe):
        look(bytes(MIB) + vhd_footer(4, MIB), "vhd")


def test_a_vhd_whose_geometry_is_not_its_size_is_measured_by_qemu() -> None:
    assert look(bytes(MIB + 512) + vhd_footer(2, MIB + 512)).virtual_size == 0


@pytest.mark.parametrize(
    "content",
    [
        dmg(version=3),
        dmg(length=0),
        dmg(bytes(510) + b"\x55\xaa"),
    ],
)
def test_a_raw_disk_that_ends_like_a_dmg_is_raw_unless_the_caller_says_otherwise(content: bytes) -> None:
    assert look(content).format == "raw"
    assert look(content, "dmg").format == "dmg"


@pytest.mark.parametrize("content", [dmg(xml_length=0), dmg(xml_at=1000), dmg(xml_length=(1 << 64) - 1)])
def test_a_raw_disk_that_ends_like_a_dmg_without_a_table_is_raw(content: bytes) -> None:
    assert look(content).format == "raw"
    with pytest.raises(ImageInvalid):
        look(content, "dmg")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (dmg(chunks=[]), "cover 0 of 2048 sectors"),
        (dmg(sectors=2049), "cover 2048 of 2049 sectors"),
        (dmg(sectors=0), "cover 2048 of 0 sectors"),
        (dmg(xml=b"<data></data>"), "cover 0 of 2048"),
        (dmg(xml=b"\0<data>"), "cover 0 of 2048"),
        (dmg(chunks=[(0, 1, 2048, 0, 0)]), "starts at sector 1 where sector 0 is due"),
        (dmg(chunks=[(0, 0, 1024, 0, 0), (0, 1023, 1025, 0, 0)]), "starts at sector 1023 where sector 1024"),
        (dmg(chunks=[(0, 1024, 1024, 0, 0), (0, 0, 1024, 0, 0)]), "starts at sector 1024 where sector 0"),
        (dmg(chunks=[(7, 0, 2048, 0, 0)]), "cover 0 of 2048"),
        (dmg(chunks=[(1, 0, 2048, 0, 512)]), "2048 sectors in 512 bytes"),
        (dmg(chunks=[(0x80000005, 0, 1 << 18, 0, 10)]), "262144 sectors in 10 bytes"),
        (dmg(chunks=[(0x80000005, 0, 2048, 0, 65 << 20)]), f"2048 sectors in {65 << 20} bytes"),
        (dmg(chunks=[(0x80000005, 0, 2048, 1500, 50)]), "truncated: its compressed data ends at byte 1550"),
        (dmg(chunks=[(0x80000004, 0, 2048, 0, 0)]), "compressed with ADC"),
        (dmg(chunks=[(0x80000008, 0, 2048, 0, 0)]), "compressed with LZMA"),
        (dmg(xml=b"<data>b*</data>"), "not base64"),
        (dmg(xml=b"<data>bWlz"), "ends in the middle of data"),
        (dmg(fork=10), "resource fork"),
    ],
)
def test_a_dmg_whose_chunks_do_not_cover_it_is_refused_before_qemu_sees_it(content: bytes, reason: str) -> None:
    assert reason in refusal(content)


def test_a_vmdk_may_have_its_size_in_a_footer() -> None:
    footer = vmdk(OWN, sectors=4096)[:512]
    assert look(vmdk(OWN, directory=(1 << 64) - 1) + footer + bytes(512)).virtual_size == 4096 * 512


def test_luks_is_raw() -> None:
    assert look(b"LUKS\xba\xbe\0\x02".ljust(4096, b"\0")).format == "raw"


@pytest.mark.parametrize("asked", ["qcow", "vmdk"])
def test_a_mismatch_names_both(asked: str) -> None:
    with pytest.raises(FormatMismatch, match=f"{asked}.*the content is qcow2"):
        look(Qcow2().build(), asked)


@given(
    name=st.sampled_from(sorted(WHOLE)),
    changes=st.lists(st.tuples(st.integers(0, 1 << 12), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.none() | st.integers(1, 1 << 12),
)
@settings(max_examples=600, deadline=2000)
def test_a_changed_header_gives_an_image_or_an_error_of_ours(
    name: str, changes: list[tuple[int, int]], cut: int | None
) -> None:
    content = bytearray(WHOLE[name])
    for at, value in changes:
        # Where the numbers are: at the start, in VHDX metadata, and at the end.
        place = at if at < 2048 else (MIB + at - 2048 if len(content) > MIB and at < 3072 else len(content) - at // 8)
        if 0 <= place < len(content):
            content[place] = value
    try:
        image = look(bytes(content[:cut]))
    except ImageMountError:
        return
    assert 0 <= image.virtual_size < 1 << 63
