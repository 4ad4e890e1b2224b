"""The journal: what is written is read back, and nothing else is believed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_imagemount.engine.processes import ProcessId
from pytest_imagemount.helper.journal import Journal, Record, read_journal

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


def test_a_later_record_takes_the_place_of_the_earlier(folder: int, tmp_path: Path) -> None:
    journal = Journal(folder)
    journal.write(RECORD)
    journal.write(KNOWN)
    assert read(folder) == ([KNOWN], [])
    assert [entry.name for entry in (tmp_path / "journal").iterdir()] == ["3.json"]


def test_the_journal_goes_with_its_last_record(folder: int, tmp_path: Path) -> None:
    journal = Journal(folder)
    journal.write(RECORD)
    with pytest.raises(OSError, match="not empty"):
        journal.close()
    journal.remove(RECORD.number)
    journal.remove(RECORD.number)
    journal.close()
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_was_never_written_leaves_nothing(folder: int, tmp_path: Path) -> None:
    journal = Journal(folder)
    journal.remove(1)
    journal.close()
    assert list(tmp_path.iterdir()) == []
    assert read(folder) == ([], [])


def test_a_half_written_record_leaves_the_one_before_it_in_force(folder: int, tmp_path: Path) -> None:
    Journal(folder).write(RECORD)
    (tmp_path / "journal/3.new").write_text('{"version": 1, "tok')
    assert read(folder) == ([RECORD], [])


def test_a_record_of_another_folder_or_number_is_not_believed(folder: int, tmp_path: Path) -> None:
    Journal(folder).write(RECORD)
    assert read(folder, "1-00000000")[0] == []
    (tmp_path / "journal/3.json").rename(tmp_path / "journal/4.json")
    records, (reason,) = read(folder)
    assert records == []
    assert "journal/4.json: a record of 4711-0123abcd:3, which is not this folder's" in reason


@pytest.mark.parametrize(
    "data", ["", "{", "null", "[]", "3", "[" * 100_000, '{"version": 1}', '{"version": 2}', "\0", "\udce4"]
)
def test_nonsense_is_told_and_not_believed(folder: int, tmp_path: Path, data: str) -> None:
    journal = Journal(folder)
    journal.write(RECORD)
    journal.write(replace(RECORD, number=4))
    (tmp_path / "journal/3.json").write_text(data, errors="surrogateescape")
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


def test_a_record_that_is_too_long_is_not_read(folder: int, tmp_path: Path) -> None:
    Journal(folder).write(RECORD)
    (tmp_path / "journal/3.json").write_text(json.dumps({**RECORD.to_json(), "test": "x" * 70_000}))
    records, (reason,) = read(folder)
    assert records == []
    assert "longer than 65536 bytes" in reason


def test_links_pipes_and_folders_are_not_read(folder: int, tmp_path: Path) -> None:
    Journal(folder).write(RECORD)
    (tmp_path / "elsewhere.json").write_text(json.dumps({**RECORD.to_json(), "number": 5}))
    (tmp_path / "journal/5.json").symlink_to(tmp_path / "elsewhere.json")
    os.mkfifo(tmp_path / "journal/6.json")
    (tmp_path / "journal/7.json").mkdir()
    records, unreadable = read(folder)
    assert records == [RECORD]
    assert [line.split(":")[0] for line in unreadable] == ["journal/5.json", "journal/6.json", "journal/7.json"]


def test_a_journal_that_is_a_link_is_not_followed(folder: int, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "journal").symlink_to("real")
    records, (reason,) = read(folder)
    assert records == []
    assert reason.startswith("journal: ")


def test_a_record_that_another_user_wrote_is_not_believed(folder: int) -> None:
    Journal(folder).write(RECORD)
    records, unreadable = read_journal(folder, TOKEN, owner=os.geteuid() + 1)
    assert records == []
    assert "belongs to user" in unreadable[0].reason
