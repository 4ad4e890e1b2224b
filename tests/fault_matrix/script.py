"""What the driver of a cell, the tests in it and the helper that they start tell each other: files in one folder."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from pytest_imagemount.engine.undo import wait_until

_FILE = "script.json"


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a cell's run has to do.

    :param folder: where these files are
    :param event: name of the event
    :param moment: name of the moment
    :param by_test: the test's own code makes it happen
    :param image: the first of the two images, in ``mode``
    :param second: the image during whose life the event happens, in ``second_mode``
    :param others: the image of the other worker's test
    :param timeout: seconds, with pytest-timeout's ``timeout_method``; 0 without
    :param pause: where the helper stops with the second mount, to be struck there; empty for nowhere
    :param fail: name of the stage in which a fault is injected; empty for none
    :param fail_for: seconds for which an undo fails; 0: the first time only
    """

    folder: str
    event: str
    moment: str
    by_test: bool
    backend: str
    workers: bool
    image: str
    mode: str
    second: str
    second_mode: str
    others: str
    timeout: float
    timeout_method: str
    pause: str
    fail: str
    fail_for: float

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The script that :meth:`write` wrote."""
        return cls(**json.loads((folder / _FILE).read_text()))

    def write(self) -> None:
        """Put it into its folder."""
        tell(Path(self.folder), _FILE, json.dumps(asdict(self)))


def tell(folder: Path, name: str, text: str = "yes") -> None:
    """Write file ``name`` as a whole; the first to tell something is the one who counts."""
    path = folder / name
    if not path.exists():
        fresh = path.with_suffix(f".{os.getpid()}.new")
        fresh.write_text(text)
        fresh.replace(path)


def tell_now(folder: Path, name: str) -> None:
    """Write the time (time.monotonic, the same for every process) into file ``name``."""
    tell(folder, name, repr(time.monotonic()))


def told(folder: Path, name: str) -> str | None:
    """What file ``name`` says, None when nobody has told it yet."""
    try:
        return (folder / name).read_text()
    except FileNotFoundError:
        return None


def wait_for(folder: Path, name: str, seconds: float = 60) -> str:
    """What file ``name`` says, once it is told.

    :raises TimeoutError: it was not
    """
    if not wait_until(lambda: told(folder, name) is not None, seconds):
        raise TimeoutError(f"nobody has told {name!r} within {seconds:.0f} s")
    text = told(folder, name)
    assert text is not None
    return text
