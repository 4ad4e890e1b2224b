"""The journal: what is written is read back, and nothing else is believed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_imagemount.engine.processes import ProcessId
from pytest_imagemount.helper import journal as journal_module
from pytest_imagemount.helper.journal import Journal, read_journal, strike_out
from pytest_imagemount.helper.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKEN = "4711-0123abcd"
RECORD = Record(
    token=TOKEN,
    number=3,
    helper=ProcessId(4711, 100),
    owner=ProcessId(4700, 90),
    worker="gw0",
    test="tests/test_a.py::test_b[ü]",
    image="/images/disk.qcow2",
    partition=1,
    mode="ro",
    since=1795408738.5,
)
KNOWN = replace(
    RECORD,
    format="qcow2",
    backend="fuse",
    device="/dev/loop3",
    mountpoint="/run/pytest-imagemount/0/4711-0123abcd/mount-1",
    daemon=ProcessId(4712, 101),
    kept=True,
)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
NAMES = st.sampled_from([*RECORD.to_json(), "x"])
ANY_JSON = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner))


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def read(folder: int, token: str = TOKEN) -> tuple[list[Record], list[str]]:
    records, unreadable = read_journal(folder, token, owner=os.geteuid())
    return records, [f"{file.name}: {file.reason}" for file in unreadable]


@pytest.mark.parametrize(
    "record", [RECORD, KNOWN, replace(RECORD, partition="PARTLABEL=root"), replace(RECORD, partition=-1)]
)
def test_a_record_is_read_back_as_it_was_written(folder: int, record: Record) -> None:
    Journal(folder).write(record)
    assert read(folder) == ([record], [])


def line_of(value: object) -> bytes:
    """A line of a journal, with the checksum that fits."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return b"%08x %s\n" % (zlib.crc32(data), data)


def add(tmp_path: Path, data: bytes) -> None:
    with (tmp_path / "journal").open("ab") as file:
        file.write(data)


def test_a_later_record_takes_the_place_of_the_earlier(folder: int) -> None:
    journal = Journal(folder)
    journal.write(RECORD)
    journal.write(KNOWN)
    assert read(folder) == ([KNOWN], [])


def test_a_record_that_is_removed_is_not_read_and_the_others_are(folder: int) -> None:
    journal = Journal(folder)
    others = [replace(RECORD, number=number) for number in (1, 2)]
    for record in (others[0], RECORD, KNOWN, others[1]):
        journal.write(record)
    journal.remove(RECORD.number)
    assert read(folder) == (others, [])
    journal.write(RECORD)
    assert read(folder) == ([*others, RECORD], [])


def test_the_journal_goes_with_its_last_record(folder: int, tmp_path: Path) -> None:
    journal = Journal(folder)
    journal.write(RECORD)
    with pytest.raises(OSError, match="not empty: mount 3"):
        journal.close()
    journal.remove(RECORD.number)
    journal.remove(RECORD.number)
    journal.close()
    journal.close()
    assert list(tmp_path.iterdir()) == []
    journal.write(KNOWN)
    assert read(folder) == ([KNOWN], [])


def test_a_journal_that_was_never_written_leaves_nothing(folder: int, tmp_path: Path) -> None:
    journal = Journal(folder)
    journal.remove(1)
    journal.close()
    assert list(tmp_path.iterdir()) == []
    assert read(folder) == ([], [])


def test_a_record_cut_off_anywhere_leaves_the_one_before_it_in_force(folder: int, tmp_path: Path) -> None:
    journal = Journal(folder)
    journal.write(RECORD)
    before = (tmp_path / "journal").read_bytes()
    journal.write(KNOWN)
    after = (tmp_path / "journal").read_bytes()
    for length in range(len(before), len(after)):
        (tmp_path / "journal").write_bytes(after[:length])
        assert read(folder) == ([RECORD], [])


WRITER = """
import os, sys
from dataclasses import replace
from pytest_imagemount.helper import journal
from pytest_imagemount.helper.record import Record
journal._FEWEST = 5000
first, known = (Record.parse(text.encode()) for text in sys.argv[2:])
book = journal.Journal(os.open(sys.argv[1], os.O_RDONLY))
book.write(first)
print("ready", flush=True)
for number in range(1, 1 << 30):
    book.write(replace(first, number=number))
    book.write(replace(known, number=number))
    print(number, flush=True)
    book.remove(number)
"""


@pytest.mark.parametrize("length", [1, 5000, 30_001])
def test_a_kill_at_any_moment_leaves_every_record_that_was_written(folder: int, tmp_path: Path, length: int) -> None:
    first = replace(RECORD, number=0)
    arguments = [str(tmp_path), *(json.dumps(record.to_json()) for record in (first, KNOWN))]
    with subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.stdout.read(length)
        process.send_signal(signal.SIGKILL)
        process.stdout.read()
    records, unreadable = read(folder)
    assert unreadable == []
    assert records[0] == first
    assert len(records) <= 2


def test_a_journal_does_not_grow_with_what_was_mounted_once(
    folder: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_FEWEST", 20_000)
    journal = Journal(folder)
    held = [replace(RECORD, number=number) for number in range(5)]
    for record in held:
        journal.write(record)
    for number in range(5, 500):
        journal.write(replace(KNOWN, number=number))
        journal.remove(number)
        assert (tmp_path / "journal").stat().st_size < 25_000
    assert read(folder) == (held, [])
    for record in held:
        journal.remove(record.number)
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_fails_the_write_and_spoils_nothing(folder: int, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(folder)
    journal.write(RECORD)
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, place: real(fd, data[:50], place))
    with pytest.raises(OSError, match="no space"):
        journal.write(KNOWN)
    assert read(folder) == ([RECORD], [])
    monkeypatch.undo()
    journal.write(KNOWN)
    assert read(folder) == ([KNOWN], [])


def test_what_a_dead_helper_held_is_struck_out_by_its_numbers(folder: int) -> None:
    journal = Journal(folder)
    others = [replace(RECORD, number=number) for number in (1, 2)]
    for record in (RECORD, *others, KNOWN):
        journal.write(record)
    strike_out(folder, {1, 3, None}, owner=os.geteuid())
    assert read(folder) == ([others[1]], [])
    with pytest.raises(ValueError, match="belongs to user"):
        strike_out(folder, {2}, owner=os.geteuid() + 1)


def test_a_record_of_another_folder_is_not_believed(folder: int) -> None:
    Journal(folder).write(RECORD)
    records, (reason,) = read(folder, "1-00000000")
    assert records == []
    assert "journal, line 1: a record of 4711-0123abcd:3, which is not this folder's" in reason


def test_a_record_that_does_not_fit_its_checksum_is_told(folder: int, tmp_path: Path) -> None:
    journal = Journal(folder)
    journal.write(RECORD)
    journal.write(replace(RECORD, number=4))
    data = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(data.replace(b"gw0", b"gw1", 1))
    records, unreadable = read(folder)
    assert [record.number for record in records] == [4]
    assert unreadable == ["journal, line 1: its checksum does not fit"]


@pytest.mark.parametrize("sum_fits", [True, False])
@pytest.mark.parametrize(
    "data", ["", "{", "null", "[]", "3", "[" * 100_000, '{"version": 1}', '{"version": 2}', "\0", "\udce4"]
)
def test_nonsense_is_told_and_not_believed(folder: int, tmp_path: Path, data: str, sum_fits: bool) -> None:
    Journal(folder).write(replace(RECORD, number=4))
    raw = data.encode(errors="surrogateescape")
    add(tmp_path, line_of(raw) if sum_fits else raw + b"\n")
    records, unreadable = read(folder)
    assert [record.number for record in records] == [4]
    assert len(unreadable) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("token", "../../etc"),
        ("number", -1),
        ("number", True),
        ("number", 1 << 70),
        ("helper", {"pid": 1}),
        ("helper", {"pid": "1", "start": 2}),
        ("owner", None),
        ("daemon", []),
        ("partition", 1.5),
        ("image", 7),
        ("since", "yesterday"),
        ("since", float("nan")),
        ("kept", 1),
        ("more", 1),
    ],
)
def test_a_field_of_another_type_is_not_believed(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Record.parse(json.dumps({**RECORD.to_json(), name: value}).encode())


@given(ANY_JSON)
def test_any_json_gives_a_record_or_a_value_error(value: Any) -> None:
    merged = {**RECORD.to_json(), **value} if isinstance(value, dict) else value
    try:
        record = Record.parse(json.dumps(merged).encode())
    except ValueError:
        return
    assert record.token.startswith("4711") or "token" in value


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        Record.parse(data)


def test_a_record_that_is_too_long_is_not_believed(folder: int, tmp_path: Path) -> None:
    Journal(folder).write(replace(RECORD, number=4))
    add(tmp_path, line_of({**RECORD.to_json(), "test": "x" * (1 << 20)}))
    records, (reason,) = read(folder)
    assert [record.number for record in records] == [4]
    assert "longer than 1048576 bytes" in reason


def test_a_journal_that_is_a_link_a_pipe_or_a_folder_is_not_read(folder: int, tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(line_of(RECORD.to_json()))
    journal = tmp_path / "journal"
    journal.symlink_to("real")
    assert read(folder)[0] == []
    journal.unlink()
    os.mkfifo(journal)
    assert read(folder) == ([], ["journal: not a regular file"])
    journal.unlink()
    journal.mkdir()
    assert read(folder) == ([], ["journal: not a regular file"])


def test_a_journal_that_is_too_long_is_not_read(folder: int, tmp_path: Path) -> None:
    Journal(folder).write(RECORD)
    os.truncate(tmp_path / "journal", (256 << 20) + 1)
    records, (reason,) = read(folder)
    assert records == []
    assert reason == "journal: longer than 268435456 bytes"


def test_a_record_that_another_user_wrote_is_not_believed(folder: int) -> None:
    Journal(folder).write(RECORD)
    records, unreadable = read_journal(folder, TOKEN, owner=os.geteuid() + 1)
    assert records == []
    assert "belongs to user" in unreadable[0].reason


def test_a_journal_that_was_removed_by_hand_does_not_spoil_the_end(folder: int) -> None:
    journal = Journal(folder)
    journal.write(RECORD)
    os.unlink("journal", dir_fd=folder)
    journal.remove(RECORD.number)
    journal.close()
    journal.write(RECORD)
    assert read_journal(folder, TOKEN, owner=os.geteuid())[0] == [RECORD]
