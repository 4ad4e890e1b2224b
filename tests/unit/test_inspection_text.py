from __future__ import annotations

from pathlib import Path

import pytest

from pytest_imagemount.engine.reader import Window
from pytest_imagemount.engine.superblock import AMBIVALENT, Superblock
from pytest_imagemount.engine.tables.read import Partition, PartitionTable
from pytest_imagemount.inspection import Choice, Inspection, Volume, to_json
from pytest_imagemount.inspection_os import System
from pytest_imagemount.inspection_text import describe, render
from pytest_imagemount.terminal import Style

PLAIN = Style(colour=False, unicode=False)
UUID = "2567a004-aacf-467e-a0ce-58dfa02a0aae"


def inspection(
    *held: Superblock | None,
    labels: dict[int, str] | None = None,
    whole: Superblock | None = None,
    os: System | None = None,
) -> Inspection:
    """A GPT of partitions of a MiB that hold these."""
    partitions = tuple(
        Partition(number, Window(number << 20, 1 << 20), "t", "linux-generic", UUID, (labels or {}).get(number))
        for number in range(1, len(held) + 1)
    )
    return Inspection(
        path=Path("/disk.img"),
        format="raw",
        virtual_size=32 << 20,
        file_size=32 << 20,
        allocated=4096,
        table=PartitionTable("gpt", 512, "id", partitions, ("it is odd " * 20,)) if held else None,
        whole=Volume(whole),
        volumes={number: Volume(one) for number, one in enumerate(held, start=1)},
        auto=Choice(None, "nobody knows"),
        os=os,
    )


@pytest.mark.parametrize(
    ("superblock", "words"),
    [
        (Superblock("ext4", "filesystem", version="1.0"), "ext4"),
        (Superblock("vfat", "filesystem", version="FAT32"), "vfat FAT32"),
        (Superblock("swap", "other", version="1"), "swap"),
        (Superblock("LVM2_member", "raid", version="LVM2 001"), "LVM physical volume LVM2 001"),
        (Superblock("crypto_LUKS", "crypto", version="2"), "LUKS 2"),
        (Superblock("linux_raid_member", "raid", version="1.2"), "Linux RAID member 1.2"),
        (Superblock("DM_verity_hash", "crypto"), "verity hash tree"),
        (Superblock("nvidia_raid_member", "raid"), "nvidia_raid_member (raid, not mountable)"),
        (Superblock("several", AMBIVALENT), "several (ambivalent, not mountable)"),
        (Superblock("ext4", "filesystem", version="\x1b[2J"), "ext4 \\x1b[2J"),
        (None, "nothing known"),
    ],
)
def test_what_a_volume_holds_is_told_in_words(superblock: Superblock | None, words: str) -> None:
    assert describe(Volume(superblock)) == words


def test_why_a_volume_cannot_be_read_is_told() -> None:
    assert describe(Volume(None, "no\nsuch")) == "no\\nsuch"


def test_nothing_of_the_image_can_write_to_the_terminal_or_add_a_line() -> None:
    evil = "\x1b[2J\r\nx\u202e\x85"
    found = inspection(
        Superblock("ext4", "filesystem", evil, evil, evil),
        labels={1: evil},
        os=System(partition=1, id=evil, version_id=evil, pretty_name=evil, architecture=evil),
    )
    text = render(found, PLAIN)
    assert all(char.isprintable() or char == "\n" for char in text)
    assert (
        len(text.splitlines())
        == len(render(inspection(Superblock("ext4", "filesystem"), labels={1: "x"}), PLAIN).splitlines()) + 5
    )
    whole = render(inspection(whole=Superblock("ext4", "filesystem", evil, evil, evil)), PLAIN)
    assert all(char.isprintable() or char == "\n" for char in whole)


def test_long_texts_are_cut_or_wrapped_at_80_columns() -> None:
    found = inspection(
        *[Superblock("linux_raid_member", "raid", "l" * 60, UUID, "1.2")] * 3, labels=dict.fromkeys((1, 2, 3), "n" * 36)
    )
    lines = render(found, PLAIN).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("..." in line for line in lines)
    assert any(line.startswith("  warning: it is odd") for line in lines)


def test_columns_in_which_nothing_is_are_left_out() -> None:
    assert "label" not in render(inspection(Superblock("swap", "other")), PLAIN)
    assert "label" in render(inspection(Superblock("swap", "other", "x")), PLAIN)


def test_what_the_disk_as_a_whole_holds_is_told_besides_its_table() -> None:
    text = render(inspection(None, whole=Superblock("iso9660", "filesystem", "LIVE")), PLAIN)
    assert '  the disk as a whole holds iso9660, label "LIVE"\n' in text


def test_colours_only_add_escapes() -> None:
    import re

    found = inspection(Superblock("ext4", "filesystem"), None)
    coloured = render(found, Style(colour=True, unicode=False))
    assert re.sub(r"\x1b\[[0-9]+m", "", coloured) == render(found, PLAIN)
    assert "\x1b[" in coloured


def test_an_error_of_the_system_is_told_and_is_json() -> None:
    found = inspection(None, os=System(error="first\nsecond \x1b"))
    assert render(found, PLAIN).endswith("Operating system\n  first\n  second \\x1b")
    assert to_json(found)["os"]["error"] == "first\nsecond \x1b"
    assert to_json(found)["os"]["id"] is None
