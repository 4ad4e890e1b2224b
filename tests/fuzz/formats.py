"""Fuzzing what tells image formats apart and checks their headers."""

from __future__ import annotations

import json
import os

from pytest_imagemount.engine.formats.known import KNOWN
from pytest_imagemount.engine.image import Image, format_of, identify, identify_one
from pytest_imagemount.errors import ImageMountError
from tests.foreign_writers import WRITERS
from tests.unit import contents
from tests.unit.contents import OWN, VHDX_ITEMS, VHDX_PARAMETERS, WHOLE, Qcow2

_LARGE = 1 << 41
_TAIL = 2048
_LONGEST_ERROR = 8192


def seeds() -> dict[str, bytes]:
    """Small images, one and more of each format, by name; some that name other files."""
    backed = bytearray(Qcow2(backing_offset=512, backing_size=9, extensions=[(0xE2792ACA, b"raw")]).build())
    backed[512:521] = b"/etc/base"
    more = {
        "qcow2 of old": Qcow2(version=2).build(),
        "qcow2 with a backing file": bytes(backed),
        "qcow2 with a data file": Qcow2(incompatible=1 << 2, extensions=[(0x44415441, b"data.raw")]).build(),
        "qcow2 with a new feature": Qcow2(
            incompatible=1 << 9, extensions=[(0x6803F857, bytes([0, 9, *b"new"]))]
        ).build(),
        "qcow2 with subclusters": Qcow2(incompatible=1 << 4, l2=[0x50000 | 1 << 63, 1]).build(),
        "qcow2 with bitmaps": contents.qcow2_with_bitmaps(3, 16),
        "qcow with a backing file": contents.qcow(backing=b"/etc/base"),
        "qed with a backing file": contents.qed(5, name=b"/etc/base"),
        "vmdk with a parent": contents.vmdk(OWN + 'parentFileNameHint="/etc/base"\n'),
        "vmdk with a footer": contents.vmdk(OWN, directory=(1 << 64) - 1) + contents.vmdk(OWN)[:512] + bytes(512),
        "vmdk descriptor": b'# D\nversion=1\nCID=1\nRW 2048 FLAT "disk-flat.vmdk" 0\nRW 9 SPARSE "disk-s001.vmdk"\n',
        "vpc with a parent": contents.dynamic_vhd(4, "C:\\parent.vhd"),
        "vhdx with a parent": contents.vhdx(VHDX_ITEMS | {VHDX_PARAMETERS: b"\0\0\0\2\2\0\0\0"}),
        "vhdx with a log": contents.vhdx(VHDX_ITEMS, block_table=1 << 20, log=1 << 20) + bytes(1 << 20),
        "luks": b"LUKS\xba\xbe\0\1".ljust(4096, b"\0"),
    }
    disk = bytes(512) + b"x" * 1024 + bytes(65536)
    return WHOLE | more | {f"{name} as written": write(disk) for name, write in WRITERS.items()}


def fuzz_one(data: bytes) -> None:
    """Identify ``data`` as an image, and as the start and the end of a large one, of every format.

    :raises AssertionError: it gave what cannot be, or an error that cannot be shown or sent
    """
    fd = os.memfd_create("image")
    try:
        os.write(fd, data)
        _check(fd, len(data))
        os.ftruncate(fd, _LARGE)
        os.pwrite(fd, data[-_TAIL:], _LARGE - len(data[-_TAIL:]))
        _check(fd, _LARGE)
    finally:
        os.close(fd)


def _check(fd: int, size: int) -> None:
    alone = _identified(fd, size, None)
    if alone is not None:
        assert _identified(fd, size, alone.format) is not None
    raw = _identified(fd, size, "raw")
    assert size == 0 or (raw is not None and raw.virtual_size == size and not raw.layers)
    for format in KNOWN:
        image = _identified(fd, size, format)
        assert image is None or image.format == format
        _refer(fd, format, may=image is not None)


def _identified(fd: int, size: int, format: str | None) -> Image | None:
    try:
        image = identify(fd, "fuzzed.img", format)
    except ImageMountError as error:
        _check_error(error)
        return None
    assert 0 <= image.virtual_size < 1 << 63
    assert image.file_size == size
    assert image.format in KNOWN
    return image


def _refer(fd: int, format: str, *, may: bool) -> None:
    """Whether an image names other files, it says the same when that is refused."""
    try:
        _, references = identify_one(fd, "fuzzed.img", format)
    except ImageMountError as error:
        _check_error(error)
        assert not may
        return
    assert may is not bool(references)
    for reference in references:
        assert "\0" not in reference.name
        try:
            assert format_of(reference, "fuzzed.img") in KNOWN
        except ImageMountError as error:
            _check_error(error)


def _check_error(error: ImageMountError) -> None:
    text = str(error)
    assert text.startswith("image 'fuzzed.img'")
    assert text.isprintable()
    assert len(text) < _LONGEST_ERROR
    json.dumps(error.to_wire()).encode()
