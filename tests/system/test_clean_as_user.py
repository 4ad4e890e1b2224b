"""A plain user whose helper, which sudo started, was killed: he sees what is left, and cleans up through sudo."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from .plain_user import PlainUser, plain_user

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs")

# All in one process, since each program of such a user may have a mount namespace of its own.
SCRIPT = """
import contextlib, io, json, os, subprocess, sys
from pathlib import Path
from pytest_imagemount import cli, mount_image
from pytest_imagemount.client import current_client
from pytest_imagemount.config import Settings
from pytest_imagemount.engine.processes import start_time
from pytest_imagemount.engine.undo import wait_until

def told(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = cli.main([*arguments, "--json"])
    return status, json.loads(out.getvalue())

root = mount_image(sys.argv[1]).__enter__().root
live = told("ps")
untouched = told("clean")
subprocess.run(["sudo", "-n", "kill", "-KILL", str(current_client(Settings()).helper_pid)], check=True)
assert wait_until(lambda: start_time(live[1]["mounts"][0]["helper"]["pid"]) is None, 5)
dead = told("ps")
planned = told("clean", "--dry-run")
before = root.is_mount()
cleaned = told("clean")
values = dict(live=live, untouched=untouched, dead=dead, planned=planned, cleaned=cleaned, after=told("ps"))
values.update(root=str(root), mounted=[before, root.is_mount()], folder=root.parent.exists())
print(json.dumps(values), flush=True)
os._exit(0)
"""


@pytest.fixture
def user() -> Iterator[PlainUser]:
    with plain_user() as user:
        user.allow_sudo()
        yield user


def test_a_user_sees_and_takes_down_what_his_killed_helper_left(user: PlainUser, image_factory: ImageBuilder) -> None:
    disk = user.own(user.home / "disk.raw", image_factory(fstype="ext4").read_bytes())
    told = json.loads(user.python(SCRIPT, disk).splitlines()[-1])
    assert told["live"][1]["mounts"][0]["state"] == "live"
    assert told["live"][1]["mounts"][0]["image"] == str(disk)
    assert told["untouched"] == [0, {"dry_run": False, "reclaimed": [], "left": [], "not_ours": []}]
    assert told["dead"][1]["mounts"][0]["state"] == "dead"
    assert told["planned"][0] == told["cleaned"][0] == 0
    assert told["cleaned"][1]["reclaimed"] == told["planned"][1]["reclaimed"]
    assert f"unmount {told['root']}" in [item["what"] for item in told["cleaned"][1]["reclaimed"]]
    assert told["mounted"] == [True, False]
    assert told["after"][1]["mounts"] == []
    assert not told["folder"]
