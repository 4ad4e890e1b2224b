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
_MOST_SECONDS = 120.0
_INSTRUCTIONS_BETWEEN_LOOKS = 1_000_000


def read_headers(path: ImagePath) -> Iterator[bytes]:
    """The header of each package, by number.

    A copy is read, since SQLite wants to write where the last writer left a write-ahead log.
    """
    import sqlite3

    with tempfile.TemporaryDirectory(prefix="imagemount-rpm-") as folder:
        copy = Path(folder) / "rpmdb.sqlite"
        _copy(path, copy)
        log = path.with_name(f"{path.name}-wal")
        if log.is_file():
            _copy(log, copy.with_name(f"{copy.name}-wal"))
        try:
            with closing(sqlite3.connect(copy)) as database:
                _limit(database)
                yield from (bytes(blob) for (blob,) in database.execute("SELECT blob FROM Packages ORDER BY hnum"))
        except (sqlite3.Error, TypeError) as error:
            raise ValueError(f"SQLite says: {error}") from None


def _limit(database: sqlite3.Connection) -> None:
    """What the schema of a hostile database says could run for ever."""
    deadline = time.monotonic() + _MOST_SECONDS
    database.execute("PRAGMA trusted_schema=OFF")
    database.set_progress_handler(lambda: time.monotonic() > deadline, _INSTRUCTIONS_BETWEEN_LOOKS)


def _copy(path: ImagePath, target: Path) -> None:
    if path.stat().st_size > MOST_BYTES:
        raise larger(path, MOST_BYTES)
    left = MOST_BYTES  # it may grow meanwhile
    with path.open("rb") as source, target.open("wb") as out:
        while left > 0 and (chunk := source.read(_CHUNK)):
            left -= len(chunk)
            out.write(chunk)
