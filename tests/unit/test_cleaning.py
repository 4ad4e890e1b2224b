from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

from pytest_imagemount import cli
from pytest_imagemount.cleaning import render
from pytest_imagemount.engine import folders
from pytest_imagemount.helper.report import Item, Report
from pytest_imagemount.image_files import Files
from pytest_imagemount.terminal import Style
from pytest_imagemount.unpacking import Unpacker

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_cache_is_emptied_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cache, image = tmp_path / "cache", tmp_path / "disk.raw.gz"
    monkeypatch.setenv("IMAGEMOUNT_CACHE", str(cache))
    for name in ("base_folder", "run_folder"):  # nothing else is to be cleaned
        monkeypatch.setattr(folders, name, lambda: tmp_path / "run")
    monkeypatch.setattr(folders, "lock_folder", lambda: tmp_path)
    image.write_bytes(gzip.compress(bytes(1 << 20)))
    with Files(image, (), "ro", unpacker=Unpacker(cache, 1 << 30, print)).opened():
        (kept,) = cache.glob("*.img")
    assert cli.main(["clean", "--cache", "--dry-run"]) == 0
    assert f"remove {kept}" in capsys.readouterr().out
    assert kept.exists()
    assert cli.main(["clean", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reclaimed"] == []
    assert cli.main(["clean", "--cache"]) == 0
    assert not kept.exists()


def test_names_that_users_chose_reach_no_terminal_as_they_are() -> None:
    item = Item("unmount /run/pytest-imagemount/1000/\x1b[2J", "", "a\rb")
    shown = render(Report(dry_run=False, reclaimed=[item], left=[item], not_ours=[item]), Style(False, True))
    assert shown.count(r"/1000/\x1b[2J: a\rb") == 3
    assert all(line.isprintable() for line in shown.splitlines())
