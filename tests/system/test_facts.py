"""Facts, manifests and diffs of real file systems: what only root may see, and what a plain user sees of it by sudo."""

from __future__ import annotations

import errno
import hashlib
import os
import struct
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount import File, Manifest, Symlink, build_image, diff
from pytest_imagemount.engine import syscalls
from pytest_imagemount.factory import Device
from tests.unit.trees import mounted

from .plain_user import PlainUser, plain_user

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_imagemount.plugin import MountFactory

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs")

NET_RAW = struct.pack("<5I", 0x0200_0001, 1 << 13, 0, 0, 0)
LABEL = b"system_u:object_r:etc_t:s0\0"
CONTENT: dict[str, str | File | Symlink | Device] = {
    "etc/passwd": "root:x:0:0::/:\nweb:x:33:33::/:\n",
    "etc/group": "root:x:0:\nwww:x:33:\n",
    "etc/shadow": File(b"root:secret\n", mode=0o600, xattrs={"user.note": b"of root"}),
    "bin/ping": File(b"\x7fELF", mode=0o755, xattrs={"security.capability": NET_RAW}),
    "srv/index": File(b"<html>", mode=0o640, uid=33, gid=33, xattrs={"trusted.overlay.origin": b"\0\1"}),
    "dev/sda": Device("block", 8, 0, mode=0o660, gid=6),
    "dev/null": Device("char", 1, 3, mode=0o666),
    "run/fifo": Device("fifo"),
    "mtab": Symlink("/proc/self/mounts"),
}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return build_image(tmp_path / "disk.raw", fstype="ext4", content=CONTENT)


def test_facts_of_an_image_are_what_went_into_it(disk: Path, mounted_image: MountFactory) -> None:
    with mounted_image(disk) as image:
        found = {each.path: each for each in image.manifest()}
        for path, entry in CONTENT.items():
            facts = found[f"/{path}"]
            assert facts == (image / path).facts(follow_symlinks=False)
            if isinstance(entry, File):
                assert (facts.mode, facts.uid, facts.gid, facts.size) == (entry.mode, entry.uid, entry.gid, entry.size)
                assert facts.xattrs == entry.xattrs
        assert (found["/srv/index"].owner, found["/srv/index"].group) == ("web", "www")
        assert (found["/dev/sda"].type, found["/dev/sda"].device, found["/dev/sda"].group) == ("block", (8, 0), None)
        assert (found["/dev/null"].type, found["/dev/null"].device) == ("char", (1, 3))
        assert (found["/run/fifo"].type, found["/run/fifo"].size) == ("fifo", None)
        assert found["/mtab"].target == "/proc/self/mounts"
        assert (image / "bin/ping").capabilities() == found["/bin/ping"].capabilities == "cap_net_raw=ep"
        assert (image / "etc/shadow").capabilities() == ""
        assert (image / "srv/index").xattrs() == {"trusted.overlay.origin": b"\0\1"}


def test_attributes_of_links_and_devices_are_their_own(disk: Path, mounted_image: MountFactory) -> None:
    with mounted_image(disk, mode="rw") as image:
        for name in ("mtab", "dev/sda", "run/fifo", "srv"):
            os.setxattr(image.root / name, "trusted.me", name.encode(), follow_symlinks=False)
        os.setxattr(image.root / "etc/shadow", "security.selinux", LABEL)
        (image / "link").symlink_to("/etc/shadow")
        for name in ("mtab", "dev/sda", "run/fifo", "srv"):
            assert (image / name).xattrs(follow_symlinks=False) == {"trusted.me": name.encode()}
        assert (image / "link").selinux_context() == "system_u:object_r:etc_t:s0"
        assert (image / "link").selinux_context(follow_symlinks=False) is None
        with pytest.raises(FileNotFoundError):
            (image / "mtab").xattrs()
        assert {each.path: each for each in image.manifest()}["/mtab"].xattrs == {"trusted.me": b"mtab"}


def test_capabilities_that_the_kernel_refuses_are_an_error_and_not_absent(
    tmp_path: Path, mounted_image: MountFactory
) -> None:
    # Without checksums of metadata, so that an attribute can be changed on the disk.
    disk = build_image(tmp_path / "disk.raw", fstype="ext4", content=CONTENT, mkfs_options=["-O", "^metadata_csum"])
    data = disk.read_bytes()
    assert data.count(NET_RAW) == 1
    disk.write_bytes(data.replace(NET_RAW, b"\xee" * 4 + NET_RAW[4:]))
    with mounted_image(disk) as image:
        for read in ((image / "bin/ping").capabilities, (image / "bin/ping").facts, image.manifest):
            with pytest.raises(OSError, match=r"extended attribute 'security\.capability'") as caught:
                read()
            assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, "disk.raw:/bin/ping")


@pytest.mark.needs("qemu-img", "fuse")
def test_a_build_of_an_image_is_compared_in_one_line(disk: Path, tmp_path: Path, mounted_image: MountFactory) -> None:
    again = build_image(
        tmp_path / "again.qcow2",
        format="qcow2",
        table="gpt",
        partitions=[{"fstype": "ext4", "content": CONTENT}],
    )
    with mounted_image(disk) as one, mounted_image(again, 1) as two:
        assert not diff(one, two, times=True, ignore=["/lost+found"])
        assert one.manifest() == two.manifest()
        saved = one.manifest(times=True)
    saved.write(tmp_path / "saved")
    changed = build_image(tmp_path / "changed.raw", fstype="ext4", content={**CONTENT, "etc/shadow": "", "new/a": ""})
    with mounted_image(changed) as three:
        found = diff(tmp_path / "saved", three)
        assert list(found.added) == ["/new", "/new/a"]
        assert [reason.fact for reason in found.changed["/etc/shadow"].reasons] == [
            "mode",
            "size",
            "sha256",
            "xattr user.note",
        ]


def test_a_tree_on_a_file_system_without_attributes_has_facts(tmp_path: Path, mounted_image: MountFactory) -> None:
    folder = tmp_path / "proc"
    folder.mkdir()
    syscalls.mount("proc", str(folder), "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC, "")
    try:
        image = mounted(folder)
        assert (image / "version").facts().xattrs == {}
        assert (image / "version").facts().sha256 == hashlib.sha256((image / "version").read_bytes()).hexdigest()
        image.unmount()
    finally:
        syscalls.umount2(str(folder))


# A plain user


@pytest.fixture(scope="module")
def user() -> Iterator[PlainUser]:
    with plain_user() as made:
        made.allow_sudo()
        yield made


def test_a_plain_user_gets_the_manifest_that_root_gets(
    user: PlainUser, disk: Path, mounted_image: MountFactory
) -> None:
    path = user.own(user.home / "disk.raw", disk.read_bytes())
    with mounted_image(path, mode="rw") as image:
        (image / "srv").chmod(0o700)
        os.setxattr(image.root / "mtab", "trusted.me", b"link", follow_symlinks=False)
        expected = image.manifest(times=True)
    code = """
import os, sys
from pytest_imagemount import mount_image
with mount_image(sys.argv[1]) as image:
    assert os.geteuid() != 0
    for name in ("etc/shadow", "srv/index"):
        try:
            os.getxattr(image.root / name, "user.note")
        except PermissionError:
            continue
        raise SystemExit(f"{name} is readable by itself: the test shows nothing")
    image.manifest(times=True).write("saved")
    assert (image / "bin/ping").capabilities() == "cap_net_raw=ep"
    assert (image / "etc/shadow").xattrs() == {"user.note": b"of root"}
    assert (image / "srv/index").facts().xattrs == {"trusted.overlay.origin": bytes([0, 1])}
    try:
        (image / "none").xattrs()
    except FileNotFoundError as error:
        print(error.filename)
"""
    assert user.python(code, path) == "disk.raw:/none"
    assert Manifest.read(user.home / "saved") == expected
