"""rpm's database in SQLite (``rpmdb.sqlite``; the default since rpm 4.16)."""

from __future__ import annotations

import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from .reading import larger

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from ..image_path import ImagePath

MOST_BYTES = 2 << 30
_CHUNK = 1 << 20
_LONGEST_HEADER = 256 << 20  # as rpm itself
_MOST_SECONDS = 120.0
_INSTRUCTIONS_BETWEEN_LOOKS = 1_000_000


def read_headers(path: ImagePath) -> Iterator[bytes]:
    """The header of each package, by number; together they are no larger than the file.

    A copy is read, since SQLite wants to write where the last writer left a write-ahead log.
    """
    import sqlite3

    with tempfile.TemporaryDirectory(prefix="imagemount-rpm-") as folder:
        copy = Path(folder) / "rpmdb.sqlite"
        size = _copy(path, copy)
        log = path.with_name(f"{path.name}-wal")
        if log.is_file():
            size += _copy(log, copy.with_name(f"{copy.name}-wal"))
        try:
            with closing(sqlite3.connect(copy)) as database:
                _limit(database)
                _refuse_programs(database)
                for (blob,) in database.execute("SELECT blob FROM Packages ORDER BY hnum"):
                    yield (header := bytes(blob))
                    size -= len(header)
                    if size < 0:
                        raise ValueError("has pages that hold more than one part of the table")
        except (sqlite3.Error, TypeError) as error:
            raise ValueError(f"SQLite says: {error}") from None


def _limit(database: sqlite3.Connection) -> None:
    """What the schema of a hostile database says could run for ever."""
    import sqlite3

    deadline = time.monotonic() + _MOST_SECONDS
    database.execute("PRAGMA trusted_schema=OFF")
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_HEADER)
    database.set_progress_handler(lambda: time.monotonic() > deadline, _INSTRUCTIONS_BETWEEN_LOOKS)


def _refuse_programs(database: sqlite3.Connection) -> None:
    """A view, a virtual table or a column that is computed runs what the image says; one step of it may take hours.

    :raises ValueError: ``Packages`` is not a table of values
    """
    kinds = database.execute("SELECT type, rootpage FROM sqlite_master WHERE name = 'Packages' COLLATE NOCASE")
    columns = database.execute("SELECT hidden FROM pragma_table_xinfo('Packages')")
    if any(kind != "table" or not page for kind, page in kinds) or any(hidden for (hidden,) in columns):
        raise ValueError("has no plain table of packages, which rpm always has")
    database.set_authorizer(_authorize)


def _authorize(action: int, table: str | None, *_: str | None) -> int:
    """What ``SELECT blob FROM Packages ORDER BY hnum`` needs, and no more."""
    import sqlite3

    plain = action == sqlite3.SQLITE_SELECT or (action == sqlite3.SQLITE_READ and (table or "").lower() == "packages")
    return sqlite3.SQLITE_OK if plain else sqlite3.SQLITE_DENY


def _copy(path: ImagePath, target: Path) -> int:
    """Copy the file; the number of its bytes."""
    if path.stat().st_size > MOST_BYTES:
        raise larger(path, MOST_BYTES)
    left = MOST_BYTES  # it may grow meanwhile
    with path.open("rb") as source, target.open("wb") as out:
        while left > 0 and (chunk := source.read(_CHUNK)):
            left -= len(chunk)
            out.write(chunk)
    return MOST_BYTES - left
