"""What the kernel sees in images that the factory built, as root and as nobody."""

from __future__ import annotations

import errno
import json
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount import programs
from pytest_imagemount.factory import Device, Directory, File, Hardlink, Symlink, build_image
from pytest_imagemount.factory.content import DEFAULT_TIME
from tests.unit.builders import BUILDERS, Builder, builder_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs = pytest.mark.needs
pytestmark = needs("root", "loop")

TIME = 1_000_000_000
CONTENT: dict[str, Any] = {
    ".": Directory(mode=0o711, uid=5, gid=6, mtime=TIME),
    "etc/hostname": "web01\n",
    "bin/su": File(b"\x7fELF" * 2000, mode=0o4755, gid=70_000, mtime=TIME),
    "home/user": Directory(mode=0o2750, uid=1000, gid=1000),
    "home/user/unreadable": File("secret", mode=0, uid=1000, gid=100),
    "tmp": Directory(mode=0o1777),
    "link": Symlink("/etc/passwd", uid=3, mtime=TIME),
    "dangling": Symlink("../" * 30 + "x" * 100),
    "umlaut": Symlink("/größe/" + "y" * 100),
    "dev/null": Device("char", 1, 3, mode=0o666),
    "dev/nvme": Device("block", 259, 70_000, mode=0o660, gid=6),
    "run/pipe": Device("fifo", mode=0o600, uid=7),
}
STATUS = {
    ".": (stat.S_IFDIR | 0o711, 5, 6, TIME),
    "etc": (stat.S_IFDIR | 0o755, 0, 0, DEFAULT_TIME),
    "etc/hostname": (stat.S_IFREG | 0o644, 0, 0, DEFAULT_TIME),
    "bin/su": (stat.S_IFREG | 0o4755, 0, 70_000, TIME),
    "home": (stat.S_IFDIR | 0o755, 0, 0, DEFAULT_TIME),
    "home/user": (stat.S_IFDIR | 0o2750, 1000, 1000, DEFAULT_TIME),
    "home/user/unreadable": (stat.S_IFREG, 1000, 100, DEFAULT_TIME),
    "tmp": (stat.S_IFDIR | 0o1777, 0, 0, DEFAULT_TIME),
    "link": (stat.S_IFLNK | 0o777, 3, 0, TIME),
    "dangling": (stat.S_IFLNK | 0o777, 0, 0, DEFAULT_TIME),
    "umlaut": (stat.S_IFLNK | 0o777, 0, 0, DEFAULT_TIME),
    "dev/null": (stat.S_IFCHR | 0o666, 0, 0, DEFAULT_TIME),
    "dev/nvme": (stat.S_IFBLK | 0o660, 0, 6, DEFAULT_TIME),
    "run/pipe": (stat.S_IFIFO | 0o600, 7, 0, DEFAULT_TIME),
}
LINUX_FILE_SYSTEMS = [
    pytest.param("ext2", marks=needs("ext4", "mke2fs", "debugfs")),
    pytest.param("ext3", marks=needs("ext4", "mke2fs", "debugfs")),
    pytest.param("ext4", marks=needs("ext4", "mke2fs", "debugfs")),
    pytest.param("xfs", marks=needs("xfs", "mkfs.xfs")),
    pytest.param("btrfs", marks=needs("btrfs", "mkfs.btrfs")),
    pytest.param("squashfs", marks=needs("squashfs", "mksquashfs")),
    pytest.param("erofs", marks=needs("erofs", "mkfs.erofs")),
]


@pytest.fixture(params=BUILDERS)
def builder(request: pytest.FixtureRequest) -> Iterator[Builder]:
    with builder_of(request.param) as found:
        yield found


@contextmanager
def mounted(image: Path, folder: Path, fstype: str, options: str = "ro") -> Iterator[Path]:
    folder.mkdir()
    programs.run(["mount", "-t", fstype, "-o", f"loop,{options}", str(image), str(folder)])
    try:
        yield folder
    finally:
        programs.run(["umount", str(folder)])


@contextmanager
def loop_device(image: Path, sector_size: int) -> Iterator[str]:
    argv = ["losetup", "--find", "--show", "--read-only", f"--sector-size={sector_size}", str(image)]
    device = programs.run(argv).decode().strip()
    try:
        yield device
    finally:
        programs.run(["losetup", "--detach", device])


@pytest.mark.parametrize("fstype", LINUX_FILE_SYSTEMS)
def test_the_kernel_sees_what_was_asked_for(builder: Builder, tmp_path: Path, fstype: str) -> None:
    image = builder(fstype=fstype, content=CONTENT)
    with mounted(image, tmp_path / "m", fstype) as root:
        found = {}
        for path in STATUS:
            status = (root / path).lstat()
            found[path] = (status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime))
        assert found == STATUS
        assert (root / "etc/hostname").read_text() == "web01\n"
        assert (root / "bin/su").read_bytes() == b"\x7fELF" * 2000
        assert (root / "home/user/unreadable").read_text() == "secret"
        for link in ("link", "dangling", "umlaut"):
            assert os.readlink(root / link) == CONTENT[link].target  # noqa: PTH115 - a Path would be another text
        assert (root / "dev/null").lstat().st_rdev == os.makedev(1, 3)
        assert (root / "dev/nvme").lstat().st_rdev == os.makedev(259, 70_000)
        names = {str(entry.relative_to(root)) for entry in root.rglob("*")}
        assert names - {"lost+found"} == set(STATUS) - {"."} | {"bin", "dev", "run"}
        types = {
            entry.name: stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) for entry in os.scandir(root / "dev")
        }
        assert types == {"null": stat.S_IFCHR, "nvme": stat.S_IFBLK}


@pytest.mark.parametrize("fstype", [param for param in LINUX_FILE_SYSTEMS if param.values != ("xfs",)])
def test_hard_links_are_one_file(builder: Builder, tmp_path: Path, fstype: str) -> None:
    content = {"a/file": File(b"data", mode=0o640, uid=9), "b/one": Hardlink("a/file"), "two": Hardlink("a/file")}
    with mounted(builder(fstype=fstype, content=content), tmp_path / "m", fstype) as root:
        statuses = [(root / name).lstat() for name in content]
        assert {(status.st_ino, status.st_nlink, status.st_uid) for status in statuses} == {(statuses[0].st_ino, 3, 9)}
        assert (root / "two").read_bytes() == b"data"


@pytest.mark.parametrize("fstype", [param for param in LINUX_FILE_SYSTEMS if param.values != ("xfs",)])
def test_names_of_any_bytes_reach_the_kernel(builder: Builder, tmp_path: Path, fstype: str) -> None:
    names = [
        'quo"te',
        " two  spaces ",
        "new\nline",
        "tab\t",
        "back\\slash",
        "<12>",
        "-f",
        "{}",
        "#x",
        "$",
        ":",
        "\udcff",
    ]
    content: dict[str, Any] = {f"di\nr/{name}": name.encode("utf-8", "surrogateescape") for name in names}
    content["li\nnk"] = Symlink('to "a"\nb')
    with mounted(builder(fstype=fstype, content=content), tmp_path / "m", fstype) as root:
        found = {entry.name: entry.read_bytes() for entry in (root / "di\nr").iterdir()}
        assert found == {name: name.encode("utf-8", "surrogateescape") for name in names}
        assert os.readlink(root / "li\nnk") == 'to "a"\nb'  # noqa: PTH115


@pytest.mark.parametrize(
    "fstype",
    [
        pytest.param("ext4", marks=needs("ext4", "mke2fs", "debugfs")),
        pytest.param("squashfs", marks=needs("squashfs", "mksquashfs")),
    ],
)
def test_extended_attributes_are_those_asked_for(builder: Builder, tmp_path: Path, fstype: str) -> None:
    # struct vfs_cap_data, revision 2: cap_net_raw, effective.
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    content = {"ping": File(b"", mode=0o755, xattrs={"user.origin": b"\0\xff test", "security.capability": capability})}
    with mounted(builder(fstype=fstype, content=content), tmp_path / "m", fstype) as root:
        try:
            origin = os.getxattr(root / "ping", "user.origin")
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP or fstype != "squashfs":
                raise
            pytest.skip("this kernel is built without extended attributes in squashfs (CONFIG_SQUASHFS_XATTR)")
        assert origin == b"\0\xff test"
        assert os.getxattr(root / "ping", "security.capability") == capability


@pytest.mark.parametrize(
    "fstype", [param for param in LINUX_FILE_SYSTEMS if param.values[0] not in {"squashfs", "erofs"}]
)
def test_an_image_can_be_written_to_and_stays_sound(builder: Builder, tmp_path: Path, fstype: str) -> None:
    image = builder(fstype=fstype, content=CONTENT)
    with mounted(image, tmp_path / "m", fstype, "rw") as root:
        for index in range(50):
            (root / f"new {index}").write_bytes(bytes([index]) * 5000)
        (root / "bin/su").unlink()
    with mounted(image, tmp_path / "again", fstype) as root:
        assert (root / "new 49").read_bytes() == bytes([49]) * 5000
        assert not (root / "bin/su").exists()


@needs("vfat", "mkfs.vfat", "mtools")
def test_the_kernel_reads_vfat(builder: Builder, tmp_path: Path) -> None:
    content = {"EFI/BOOT/BOOTX64.EFI": b"MZ" * 3000, "loader/größe und länge.conf": "timeout 3\n"}
    with mounted(builder(fstype="vfat", content=content), tmp_path / "m", "vfat", "ro,utf8=1") as root:
        assert (root / "EFI/BOOT/BOOTX64.EFI").read_bytes() == b"MZ" * 3000
        assert (root / "loader/größe und länge.conf").read_text() == "timeout 3\n"


@needs("ext4", "mke2fs", "debugfs")
@pytest.mark.parametrize("table", ["gpt", "mbr"])
def test_partitions_of_a_table_for_4096_byte_sectors_are_where_the_kernel_looks(tmp_path: Path, table: str) -> None:
    """sfdisk takes the sector size of a device from the kernel, but that of a file always as 512."""
    part = {"fstype": "ext4", "size": "16M", "content": {"name": "lab"}}
    image = build_image(tmp_path / "disk", table=table, sector_size=4096, partitions=[part] * 5)
    with loop_device(image, 4096) as device:
        found = json.loads(programs.run(["sfdisk", "--json", device]))["partitiontable"]
        programs.run(["sfdisk", "--verify", device])
    assert (found["label"], found["sectorsize"]) == ({"gpt": "gpt", "mbr": "dos"}[table], 4096)
    parts = [item for item in found["partitions"] if item["type"] != "f"]
    assert len(parts) == 5
    for number, item in enumerate(parts):
        window = f"ro,offset={item['start'] * 4096},sizelimit={item['size'] * 4096}"
        with mounted(image, tmp_path / f"m{number}", "ext4", window) as root:
            assert (root / "name").read_text() == "lab"


@needs("mkswap")
def test_swapon_would_take_the_swap_space(tmp_path: Path) -> None:
    image = build_image(tmp_path / "swap", fstype="swap", size="2M", label="lab")
    with loop_device(image, 512) as device:
        text = programs.run(["blkid", "--probe", "-o", "export", device]).decode()
    assert {"TYPE=swap", "LABEL=lab"} <= set(text.splitlines())
