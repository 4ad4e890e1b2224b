"""What is left of volumes, by nobody or for a moment: killed helpers, busy mounts, failures half way up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.engine.undo import wait_until
from pytest_imagemount.engine.volumes import dm, raid
from pytest_imagemount.errors import FilesystemNotMountable, PassphraseWrong, TeardownError
from pytest_imagemount.helper.reclaim import reclaim

from .test_raid import make_array
from .volume_images import FILES, MIB, PASSPHRASE, blank, copy_to, loops, luks_format, luks_open, run, sha256

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_imagemount.plugin import MountFactory

    ImageBuilder = Callable[..., Path]

pytestmark = pytest.mark.needs("root", "loop", "device-mapper", "md", "mdadm", "cryptsetup", "ext4", "mke2fs")

HELPER = """
import json, os, sys
from pathlib import Path
from pytest_imagemount.engine import folders
folders.base_folder = lambda: Path(sys.argv[1])
from pytest_imagemount.engine.workspace import Owner, Workspace
from pytest_imagemount.helper.operations import Mounts
from pytest_imagemount.helper.protocol import Open
from pytest_imagemount.keys import Key
workspace = Workspace(nbd_start=11)
mounts = Mounts(workspace, Owner(os.getppid(), "gw7"))
first, *others = [os.open(path, os.O_RDONLY) for path in json.loads(sys.argv[2])]
carries = ("image", *[f"member:{number}" for number in others], "key")
descriptors = [first, *others, Key.of(sys.argv[3], None).open()]
facts = mounts.open(Open(1, "disk", "disk", carries=carries), descriptors)
print(json.dumps({"root": str(facts.mountpoint), "token": workspace.token}), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def secret(image_factory: ImageBuilder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk that is a LUKS volume."""
    disk = blank(tmp_path_factory.mktemp("secret") / "disk.raw", 32 * MIB)
    luks_format(disk)
    with loops((disk, 0, None)) as [device], luks_open(device) as opened:
        copy_to(opened, image_factory(fstype="ext4", content=FILES, size="4M"))
    return disk


@pytest.fixture(scope="module")
def members(secret: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The disks of a mirror in which is a LUKS volume: three layers."""
    folder = tmp_path_factory.mktemp("members")
    disks = [blank(folder / f"disk{number}.raw", 36 * MIB) for number in range(2)]
    make_array([(disk, 0, None) for disk in disks], secret)
    return disks


def killed_helper(base: Path, disks: list[Path]) -> dict[str, Any]:
    """Mount points and token of a helper that was killed while it had ``disks`` mounted."""
    argv: list[str | Path] = [sys.executable, "-c", HELPER, base, json.dumps([str(disk) for disk in disks]), PASSPHRASE]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told: dict[str, Any] = json.loads(process.stdout.readline())
    assert (Path(told["root"]) / "etc/hostname").read_text() == "vault\n"
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()
    return told


def devices() -> list[str]:
    loops = [entry.parent.name for entry in Path("/sys/block").glob("loop*/loop")]
    return [*dm.names(), *raid.arrays(), *loops]


def test_the_last_unmount_takes_everything_down_when_every_process_is_dead(base: Path, secret: Path) -> None:
    before = devices()
    told = killed_helper(base, [secret])
    assert len(devices()) == len(before) + 2, "the mapping and the loop device below it"
    run("umount", told["root"])
    assert wait_until(lambda: devices() == before, 2)


def test_what_a_killed_helper_left_is_reclaimed(base: Path, members: list[Path]) -> None:
    before, content = devices(), [sha256(disk) for disk in members]
    told = killed_helper(base, members)
    left = set(devices()) - set(before)
    assert len(left) == 4, "a mapping on an array on two loop devices"
    plan = reclaim(base, dry_run=True)
    assert set(devices()) - set(before) == left
    report = reclaim(base, dry_run=False)
    assert report.left == []
    assert [item.what for item in report.reclaimed] == [item.what for item in plan.reclaimed]
    assert [item.what.split()[0] for item in report.reclaimed] == [
        "unmount", "remove", "remove", "detach", "detach", "remove",
    ]  # fmt: skip
    assert not Path(told["root"]).exists()
    assert devices() == before
    assert [sha256(disk) for disk in members] == content


def test_a_mounted_volume_that_a_helper_left_keeps_what_is_below_it(base: Path, members: list[Path]) -> None:
    before = devices()
    told = killed_helper(base, members)
    elsewhere = base / "elsewhere"
    elsewhere.mkdir()
    run("mount", "--bind", told["root"], elsewhere)
    report = reclaim(base, dry_run=False)
    assert any("elsewhere" in str(item) for item in report.left)
    assert len(devices()) == len(before) + 4
    run("umount", elsewhere)
    elsewhere.rmdir()
    assert reclaim(base, dry_run=False).left == []
    assert devices() == before


def test_a_mapping_that_was_never_opened_is_reclaimed_and_no_other(base: Path, secret: Path) -> None:
    told = killed_helper(base, [secret])
    ours, others = f"{dm.PREFIX}{told['token']}-1-7", f"{dm.PREFIX}4711-deadbeef-1-7"
    for name in (ours, others):
        run("dmsetup", "create", name, "--table", "0 8 zero")
    try:
        assert reclaim(base, dry_run=False).left == []
        assert dm.names() == [others]
    finally:
        run("dmsetup", "remove", others)


def test_a_busy_volume_is_told_and_goes_when_it_is_free(members: list[Path], mounted_image: MountFactory) -> None:
    pending = mounted_image(members, passphrase=PASSPHRASE)
    image = pending.__enter__()
    with (image.root / "etc/hostname").open("rb"), pytest.raises(TeardownError, match=rf"(?s)busy.*pid {os.getpid()}"):
        image.unmount()
    assert raid.arrays()
    image.unmount()
    assert not raid.arrays()
    assert not dm.names()


def test_what_fails_on_the_way_up_leaves_nothing(
    members: list[Path], secret: Path, image_factory: ImageBuilder, mounted_image: MountFactory, tmp_path: Path
) -> None:
    with pytest.raises(PassphraseWrong), mounted_image(members, passphrase="wrong"):
        pass
    assert not raid.arrays()
    assert not dm.names()
    nothing = tmp_path / "nothing.raw"
    nothing.write_bytes(secret.read_bytes())
    with loops((nothing, 0, None)) as [device], luks_open(device) as opened:
        copy_to(opened, image_factory(fstype="swap", size="1M"))
    with pytest.raises(FilesystemNotMountable, match="swap"), mounted_image(nothing, passphrase=PASSPHRASE):
        pass
    assert not dm.names()
