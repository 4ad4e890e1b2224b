"""``/etc/fstab``: its entries, and lines that are not as they must be."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.contents.fstab import FstabEntry, read_fstab
from pytest_imagemount.errors import FactsInvalid, FactsMissing

from .system_tree import make_tree

if TYPE_CHECKING:
    from pathlib import Path


def entries(folder: Path, text: str | bytes) -> tuple[FstabEntry, ...]:
    return read_fstab(make_tree(folder, {"etc/fstab": text}))


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        ("UUID=1 / ext4 defaults 0 1", FstabEntry("UUID=1", "/", "ext4", ("defaults",), 0, 1)),
        ("\t/dev/a  /x\txfs  ro,noatime ", FstabEntry("/dev/a", "/x", "xfs", ("ro", "noatime"), 0, 0)),
        ("tmpfs /tmp tmpfs", FstabEntry("tmpfs", "/tmp", "tmpfs", ("defaults",), 0, 0)),
        ("a /x ext4 ro 1", FstabEntry("a", "/x", "ext4", ("ro",), 1, 0)),
        ("a /x ext4 ,ro,,rw, 0 -1", FstabEntry("a", "/x", "ext4", ("ro", "rw"), 0, -1)),
        ("a /x ext4 ro 0 2 # comment", FstabEntry("a", "/x", "ext4", ("ro",), 0, 2)),
        (
            r"LABEL=my\040data /a\011b\134c ext4 x=\040 0 0",
            FstabEntry("LABEL=my data", "/a\tb\\c", "ext4", ("x= ",), 0, 0),
        ),
        (r"a /\303\244\303 ext4 ro", FstabEntry("a", "/ä\udcc3", "ext4", ("ro",), 0, 0)),
        (r"a /\40\999 ext4 ro", FstabEntry("a", r"/\40\999", "ext4", ("ro",), 0, 0)),
        ("a /#x ext4 ro", FstabEntry("a", "/#x", "ext4", ("ro",), 0, 0)),
    ],
)
def test_a_line_is_an_entry(line: str, entry: FstabEntry, tmp_path: Path) -> None:
    assert entries(tmp_path, f"# comment\n\n  # another\n{line}\n") == (entry,)


def test_entries_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    assert [entry.target for entry in entries(tmp_path, "b /b x\r\na /a x\nc /c x")] == ["/b", "/a", "/c"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/dev/a /x", "has 2 fields, and three are the least"),
        ("/dev/a", "has 1 fields"),
        ("/dev/a /x ext4 ro a", "'a' is not a number"),
        ("/dev/a /x ext4 ro 0 0x1", "'0x1' is not a number"),
        ("/dev/a /x ext4 # comment", "'comment' is not a number"),
    ],
)
def test_a_malformed_line_is_an_error_with_its_number(line: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(FactsInvalid, match=reason) as caught:
        entries(tmp_path, f"# one\na / ext4\n{line}\n")
    assert (caught.value.line, caught.value.path) == (3, "/etc/fstab")
    assert "image 'disk.raw': /etc/fstab, line 3: " in str(caught.value)


def test_no_fstab_is_an_error_and_an_empty_one_is_not(tmp_path: Path) -> None:
    assert entries(tmp_path / "a", "") == ()
    with pytest.raises(FactsMissing, match="has no fstab"):
        read_fstab(make_tree(tmp_path / "b", {"etc/": ""}))


@pytest.mark.skipif(shutil.which("findmnt") is None, reason="needs findmnt")
def test_entries_are_those_that_findmnt_reads(tmp_path: Path) -> None:
    text = r"""
# <file system> <mount point> <type> <options> <dump> <pass>
UUID=0a3f    /      ext4  errors=remount-ro 0 1
/dev/b\040c	/y\011z\134 ext4 a,b\040c 1 2
PARTLABEL=x /boot vfat umask=0077
/dev/f /f ext4 ro 1
LABEL=x#y /#g ext4 ro 0 0 7
/dev/k /k ext4 ro,,rw, 0 -1
none none swap sw 0 0
"""
    table = tmp_path / "fstab"
    table.write_text(text)
    columns = "SOURCE,TARGET,FSTYPE,OPTIONS,FREQ,PASSNO"
    argv = ["findmnt", "--tab-file", str(table), "--json", "--list", "--output", columns]
    done = subprocess.run(argv, capture_output=True, check=True)
    expected = [
        tuple(each[name.lower()] for name in columns.split(",")) for each in json.loads(done.stdout)["filesystems"]
    ]
    found = entries(tmp_path / "tree", text)
    assert [(each.source, each.target, each.fstype, each.dump, each.passno) for each in found] == [
        (source, target, fstype, int(freq), int(passno)) for source, target, fstype, _, freq, passno in expected
    ]
    assert [each.options for each in found] == [tuple(filter(None, each[3].split(","))) for each in expected]
