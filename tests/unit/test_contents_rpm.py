"""rpm's databases, each made byte by byte, sound and broken."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_imagemount.contents.packages import read_packages
from pytest_imagemount.contents.rpm_header import RpmHeader
from pytest_imagemount.errors import FactsInvalid

from .system_tree import make_tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

NAME, VERSION, RELEASE, EPOCH, ARCH = 1000, 1001, 1002, 1003, 1022
FOLDER_NUMBERS, BASE_NAMES, FOLDER_NAMES, OLD_NAMES = 1116, 1117, 1118, 1027
Value = str | list[str] | list[int]


def header(tags: dict[int, Value]) -> bytes:
    """A header with these tags: texts, lists of texts, lists of 32-bit numbers."""
    index, data = b"", b""
    for tag, value in sorted(tags.items()):
        if isinstance(value, str):
            kind, count, new = 6, 1, value.encode() + b"\0"
        elif value and isinstance(value[0], int):
            data += bytes(-len(data) % 4)
            kind, count, new = 4, len(value), struct.pack(f">{len(value)}I", *value)
        else:
            kind, count, new = 8, len(value), b"".join(str(each).encode() + b"\0" for each in value)
        index += struct.pack(">IIII", tag, kind, len(data), count)
        data += new
    return struct.pack(">II", len(tags), len(data)) + index + data


def package(name: str, version: str = "1.0", release: str = "1", arch: str = "x86_64", **more: Value) -> bytes:
    tags: dict[int, Value] = {NAME: name, VERSION: version, RELEASE: release, ARCH: arch}
    return header(tags | {int(tag[1:]): value for tag, value in more.items()})


BASH = package(
    "bash", "5.2~rc1", "3.el9", _1003=[2], _1116=[0, 1, 1], _1117=["bash", "a b", "c"], _1118=["/usr/bin/", "/etc/"]
)
KEY = header({NAME: "gpg-pubkey", VERSION: "0f", RELEASE: "1e"})


def sqlite_database(headers: Sequence[bytes], path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
        database.executemany("INSERT INTO Packages (blob) VALUES (?)", [(blob,) for blob in headers])
        database.commit()


def ndb_database(headers: Sequence[bytes], path: Path) -> None:
    slots, blobs = [], b""
    for number, blob in enumerate(headers, start=1):
        offset = 4096 + len(blobs)
        body = struct.pack("<4sIII", b"BlbS", number, 1, len(blob)) + blob
        body += bytes(-(len(body) + 12) % 16) + struct.pack("<II4s", 0, len(blob), b"BlbE")
        slots.append(struct.pack("<4sIII", b"Slot", number, offset // 16, len(body) // 16))
        blobs += body
    empty = struct.pack("<4sIII", b"Slot", 0, 0, 0)
    head = struct.pack("<4sIIII", b"RpmP", 0, 1, 1, len(headers) + 1).ljust(32, b"\0")
    path.write_bytes((head + b"".join(slots)).ljust(4096 - 16, b"\0") + empty + blobs)


def bdb_database(headers: Sequence[bytes], path: Path, order: str = "<") -> None:
    """Pages of 512 bytes: one of keys, whose values are on overflow pages, the first one inline."""
    size = 512
    items, overflow = [b"\1" + struct.pack(f"{order}I", 0), b"\1" + struct.pack(f"{order}I", 9)], list[bytes]()
    for number, blob in enumerate(headers, start=1):
        items.append(b"\1" + struct.pack(f"{order}I", number))
        parts = [blob[start : start + size - 26] for start in range(0, len(blob), size - 26)]
        first = 2 + len(overflow)
        items.append(b"\3" + bytes(3) + struct.pack(f"{order}II", first, len(blob)))
        for place, part in enumerate(parts):
            own, following = first + place, first + place + 1 if place + 1 < len(parts) else 0
            page = struct.pack(f"{order}8sIIIHHBB", b"", own, 0, following, 1, len(part), 0, 7) + part
            overflow.append(page.ljust(size, b"\0"))
    body, offsets = b"", list[int]()
    for item in items:
        body = item + body
        offsets.append(size - len(body))
    keys = struct.pack(f"{order}8sIIIHHBB", b"", 1, 0, 0, len(items), offsets[-1], 0, 13)
    keys += struct.pack(f"{order}{len(offsets)}H", *offsets)
    meta = struct.pack(f"{order}8sIIIIBBHII", b"", 0, 0x061561, 9, size, 0, 8, 0, 0, 1 + len(overflow))
    pages = [meta.ljust(size, b"\0"), keys.ljust(size - len(body), b"\0") + body, *overflow]
    path.write_bytes(b"".join(pages))


FORMATS: dict[str, Callable[[Sequence[bytes], Path], None]] = {
    "rpmdb.sqlite": sqlite_database,
    "Packages.db": ndb_database,
    "Packages": bdb_database,
}


def database(folder: Path, name: str, headers: Sequence[bytes], place: str = "var/lib/rpm") -> Path:
    path = folder / place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    FORMATS[name](headers, path)
    return path


@pytest.mark.parametrize("place", ["var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm"])
@pytest.mark.parametrize("name", FORMATS)
def test_packages_of_a_database(name: str, place: str, tmp_path: Path) -> None:
    database(tmp_path, name, [BASH, KEY, package("glibc", _1027=["/lib/libc.so.6"])], place)
    packages = read_packages(make_tree(tmp_path, {}))
    assert {name: (each.version, each.arch) for name, each in packages.items()} == {
        "bash": ("2:5.2~rc1-3.el9", "x86_64"),
        "gpg-pubkey": ("0f-1e", ""),
        "glibc": ("1.0-1", "x86_64"),
    }
    assert packages["bash"].files() == ("/usr/bin/bash", "/etc/a b", "/etc/c")
    assert packages["gpg-pubkey"].files() == ()
    assert packages["glibc"].files() == ("/lib/libc.so.6",)
    assert packages["bash"].satisfies("= 2:5.2~rc1, < 2:5.2")


def test_a_database_in_berkeley_db_of_a_big_endian_machine(tmp_path: Path) -> None:
    bdb_database([BASH, KEY], database(tmp_path, "Packages", []), order=">")
    assert sorted(read_packages(make_tree(tmp_path, {}))) == ["bash", "gpg-pubkey"]


def test_kernels_that_are_installed_side_by_side_have_keys_of_their_own(tmp_path: Path) -> None:
    kernels = [package("kernel", version) for version in ("6.10", "6.9", "6.8")]
    database(tmp_path, "rpmdb.sqlite", [*kernels, package("glibc"), package("glibc", arch="i686")])
    packages = read_packages(make_tree(tmp_path, {}))
    assert sorted(packages) == [
        "glibc:i686",
        "glibc:x86_64",
        "kernel:x86_64=6.10-1",
        "kernel:x86_64=6.8-1",
        "kernel:x86_64=6.9-1",
    ]
    assert packages["kernel"].version == "6.10-1"


def test_what_is_in_the_write_ahead_log_only_is_read_and_nothing_is_written(tmp_path: Path) -> None:
    path = database(tmp_path, "rpmdb.sqlite", [BASH])
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("INSERT INTO Packages (blob) VALUES (?)", (KEY,))
        writer.commit()
        before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
        assert before["rpmdb.sqlite-wal"]
        assert sorted(read_packages(make_tree(tmp_path, {}))) == ["bash", "gpg-pubkey"]
        assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("length", [0, 10, 100, 2000])
def test_a_database_that_was_cut_off_is_an_error(name: str, length: int, tmp_path: Path) -> None:
    path = database(tmp_path, name, [BASH, package("x" * 3000)])
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FactsInvalid) as caught:
        read_packages(make_tree(tmp_path, {}))
    assert caught.value.path == f"/var/lib/rpm/{name}"
    assert "rpm --rebuilddb" in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"\0", "is truncated"),
        (BASH[:-30], "is truncated"),
        (header({NAME: "x", VERSION: "1"}), "has no text with tag 1002"),
        (header({NAME: ["x"], VERSION: "1", RELEASE: "1"}), "has no text with tag 1000"),
        (package("x", _1003="one"), "has no list of numbers with tag 1003"),
        (package("x", _1116=[1], _1117=["a"], _1118=["/"]), "has a list of files that does not fit together"),
        (package("x", _1116=[0], _1117=["a", "b"], _1118=["/"]), "has a list of files that does not fit together"),
        (package("x", _1116=[0], _1117=["a"], _1118=["/" + "a" * 5000]), "has a folder name that no system takes"),
    ],
)
def test_a_broken_header_is_an_error_that_says_which_and_why(
    name: str, blob: bytes, reason: str, tmp_path: Path
) -> None:
    database(tmp_path, name, [BASH, blob])
    with pytest.raises(FactsInvalid, match=f"the header of package number 2 {reason}"):
        read_packages(make_tree(tmp_path, {}))


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS hnum, 'y' AS blob FROM n"
SLOW = "instr(zeroblob(4000000), zeroblob(100) || x'01')"  # with other numbers it takes days, in one step


@pytest.mark.parametrize(
    "schema",
    [
        f"CREATE VIEW Packages AS {ENDLESS} WHERE x < 0",
        "CREATE VIEW packages AS SELECT 1 AS hnum, {} AS blob",
        "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob AS ({}), x)",
    ],
)
def test_a_database_that_computes_its_packages_is_an_error(schema: str, tmp_path: Path) -> None:
    path = tmp_path / "var/lib/rpm/rpmdb.sqlite"
    path.parent.mkdir(parents=True)
    harmless = "1".ljust(len(SLOW))
    with closing(sqlite3.connect(path)) as database:
        database.execute(schema.format(harmless))
        if "TABLE" in schema:
            database.execute("INSERT INTO Packages (hnum) VALUES (1)")
        database.commit()
    path.write_bytes(path.read_bytes().replace(harmless.encode(), SLOW.encode()))
    with pytest.raises(FactsInvalid, match="has no plain table of packages"):
        read_packages(make_tree(tmp_path, {}))


def test_a_database_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_imagemount.contents.rpm_sqlite._MOST_SECONDS", -1)
    monkeypatch.setattr("pytest_imagemount.contents.rpm_sqlite._INSTRUCTIONS_BETWEEN_LOOKS", 1)
    database(tmp_path, "rpmdb.sqlite", [BASH])
    with pytest.raises(FactsInvalid, match="interrupted"):
        read_packages(make_tree(tmp_path, {}))


def test_a_page_that_stands_for_many_is_an_error(tmp_path: Path) -> None:
    path = database(tmp_path, "rpmdb.sqlite", [package(f"p{number:03}", "1" * 300) for number in range(100)])
    data = bytearray(path.read_bytes())
    (root,) = [start for start in range(4096, len(data), 4096) if data[start] == 5]  # the only one above the leaves
    (cells,) = struct.unpack_from(">H", data, root + 3)
    places = struct.unpack_from(f">{cells}H", data, root + 12)
    struct.pack_into(">H", data, root + 3, 600)
    struct.pack_into(">600H", data, root + 12, *[places[0]] * 600)
    path.write_bytes(data)
    with pytest.raises(FactsInvalid, match="pages that hold more than one part"):
        read_packages(make_tree(tmp_path, {}))


@pytest.mark.parametrize("name", FORMATS)
def test_paths_that_take_far_more_than_the_database_are_an_error(name: str, tmp_path: Path) -> None:
    many = package("many", _1116=[0] * 20_000, _1117=["x"] * 20_000, _1118=["/" * 4096])
    database(tmp_path, name, [BASH, many])
    with pytest.raises(FactsInvalid, match="package number 2 has a list of files of more than 64 MiB"):
        read_packages(make_tree(tmp_path, {}))


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FactsInvalid, match="not a hash table of Berkeley DB"):
        read_packages(make_tree(tmp_path, {"var/lib/rpm/Packages": b"x" * 4096}))


def test_overflow_pages_in_a_circle_are_an_error(tmp_path: Path) -> None:
    path = database(tmp_path, "Packages", [package("x" * 3000)])
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 3 * 512 + 16, 2)  # the second overflow page is followed by the first again
    path.write_bytes(data)
    with pytest.raises(FactsInvalid, match="broken chain of overflow pages"):
        read_packages(make_tree(tmp_path, {}))


def test_packages_that_lie_over_each_other_are_an_error(tmp_path: Path) -> None:
    path = database(tmp_path, "Packages.db", [package("x" * 5000)])
    data = bytearray(path.read_bytes())
    slot = data[32:48]
    for number in range(1, 40):
        data[32 + 16 * number : 48 + 16 * number] = slot
    path.write_bytes(data)
    with pytest.raises(FactsInvalid, match="lie over each other"):
        read_packages(make_tree(tmp_path, {}))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["Packages.db", "Packages"]), data=st.data())
def test_bytes_changed_anywhere_are_an_error_or_another_answer(name: str, data: st.DataObject, tmp_path: Path) -> None:
    path = database(tmp_path, name, [BASH, package("x" * 900)])
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        with suppress(FactsInvalid):
            read_packages(make_tree(tmp_path, {}))
    finally:
        path.unlink()


@given(st.binary(max_size=400))
def test_any_bytes_are_a_header_or_a_value_error(blob: bytes) -> None:
    with suppress(ValueError):
        RpmHeader(blob).files()
