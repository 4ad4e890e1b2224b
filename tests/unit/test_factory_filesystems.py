"""Each file system that the factory makes, read back by its own tools, built by this user and by nobody."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount import programs
from pytest_imagemount.errors import ProgramFailed, RequestInvalid
from pytest_imagemount.factory import Device, Directory, File, Hardlink, Symlink, build_image
from pytest_imagemount.factory.content import DEFAULT_TIME

from . import image_readers as read
from .builders import BUILDERS, Builder, builder_of
from .image_readers import Facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TIME = 1_000_000_020  # on a full minute, since unsquashfs shows no seconds
CONTENT: dict[str, Any] = {
    ".": Directory(mode=0o711, uid=5, gid=6),
    "etc/hostname": "web01\n",
    "bin/su": File(b"\x7fELF" * 2000, mode=0o4755, gid=70_000, mtime=TIME),
    "home/user": Directory(mode=0o2750, uid=1000, gid=1000),
    "home/user/unreadable": File("secret", mode=0, uid=1000, gid=100),
    "tmp": Directory(mode=0o1777),
    "link": Symlink("/etc/passwd"),
    "dev/null": Device("char", 1, 3, mode=0o666),
    "dev/nvme": Device("block", 259, 70_000, mode=0o660, gid=6),
    "run/pipe": Device("fifo", mode=0o600, uid=7),
}
FACTS = {
    "": Facts(0o711, 5, 6, DEFAULT_TIME),
    "etc": Facts(0o755, 0, 0, DEFAULT_TIME),
    "etc/hostname": Facts(0o644, 0, 0, DEFAULT_TIME),
    "bin/su": Facts(0o4755, 0, 70_000, TIME),
    "home/user": Facts(0o2750, 1000, 1000, DEFAULT_TIME),
    "home/user/unreadable": Facts(0, 1000, 100, DEFAULT_TIME),
    "tmp": Facts(0o1777, 0, 0, DEFAULT_TIME),
    "link": Facts(0o777, 0, 0, DEFAULT_TIME),
    "dev/null": Facts(0o666, 0, 0, DEFAULT_TIME),
    "run/pipe": Facts(0o600, 7, 0, DEFAULT_TIME),
}

needs = pytest.mark.needs
EXT = [pytest.param(fstype, marks=needs("mke2fs", "debugfs")) for fstype in ("ext2", "ext3", "ext4")]
XFS = pytest.param("xfs", marks=needs("mkfs.xfs"))
BTRFS = pytest.param("btrfs", marks=needs("mkfs.btrfs"))
SQUASHFS = pytest.param("squashfs", marks=needs("mksquashfs"))
EROFS = pytest.param("erofs", marks=needs("mkfs.erofs"))
VFAT = pytest.param("vfat", marks=needs("mkfs.vfat", "mtools"))
SWAP = pytest.param("swap", marks=needs("mkswap"))
EVERY_KIND = [*EXT, XFS, BTRFS, SQUASHFS, EROFS, VFAT, SWAP]

FACTS_OF: dict[str, Callable[[Path, str], Facts]] = {
    **dict.fromkeys(("ext2", "ext3", "ext4"), read.ext_facts),
    "xfs": read.xfs_facts,
    "btrfs": read.btrfs_facts,
    "squashfs": read.squashfs_facts,
    "erofs": read.erofs_facts,
}
CHECK_OF: dict[str, Callable[[Path], None]] = {
    **dict.fromkeys(("ext2", "ext3", "ext4"), read.ext_is_sound),
    "xfs": read.xfs_is_sound,
    "btrfs": read.btrfs_is_sound,
    "erofs": read.erofs_is_sound,
    "vfat": read.vfat_is_sound,
}


@pytest.fixture(params=BUILDERS)
def builder(request: pytest.FixtureRequest) -> Iterator[Builder]:
    with builder_of(request.param) as found:
        yield found


def as_shown(fstype: str, facts: Facts) -> Facts:
    """``facts`` without what the reading program does not show."""
    if fstype == "erofs":
        return Facts(facts.mode & 0o777, facts.uid, facts.gid, facts.mtime)
    if fstype == "xfs":
        return Facts(facts.mode, facts.uid, facts.gid)
    return facts


@pytest.mark.parametrize("fstype", [*EXT, XFS, BTRFS, SQUASHFS, EROFS])
def test_owners_modes_and_times_are_those_asked_for_whoever_builds(builder: Builder, fstype: str) -> None:
    image = builder(fstype=fstype, content=CONTENT)
    paths = {path: facts for path, facts in FACTS.items() if not (fstype == "squashfs" and path == "")}
    found = {path: FACTS_OF[fstype](image, path) for path in paths}
    assert found == {path: as_shown(fstype, facts) for path, facts in paths.items()}


@pytest.mark.parametrize("fstype", [*EXT, XFS, BTRFS, EROFS])
def test_the_checker_of_the_file_system_finds_no_fault(builder: Builder, fstype: str) -> None:
    links = {} if fstype == "xfs" else {"hard/link": Hardlink("bin/su")}
    CHECK_OF[fstype](builder(fstype=fstype, content={**CONTENT, **links}))


@pytest.mark.parametrize(
    ("fstype", "data"),
    [
        pytest.param("ext4", read.ext_data, marks=needs("mke2fs", "debugfs")),
        pytest.param("ext2", read.ext_data, marks=needs("mke2fs", "debugfs")),
        pytest.param("squashfs", read.squashfs_data, marks=needs("mksquashfs")),
        pytest.param("erofs", read.erofs_data, marks=needs("mkfs.erofs")),
        pytest.param("vfat", read.vfat_data, marks=needs("mkfs.vfat", "mtools")),
    ],
)
def test_data_comes_back_unchanged(builder: Builder, fstype: str, data: Callable[[Path, str], bytes]) -> None:
    large = b"".join(hashlib.sha256(str(index).encode()).digest() for index in range(10_000))
    content = {"sub folder/größe.bin": large, "empty": b"", "text": "straße\n"}
    image = builder(fstype=fstype, content=content)
    assert data(image, "sub folder/größe.bin") == large
    assert data(image, "empty") == b""
    assert data(image, "text") == "straße\n".encode()


@pytest.mark.parametrize(
    "fstype", [pytest.param("ext4", marks=needs("mke2fs", "debugfs")), SQUASHFS], ids=["ext4", "squashfs"]
)
def test_names_may_have_any_byte_that_linux_allows(tmp_path: Path, fstype: str) -> None:
    names = ['quo"te', "two  spaces ", "new\nline", "tab\t", "back\\slash", "<12>", "-f", "{}", "#x", "\udcff\udcfe"]
    content: dict[str, Any] = {f"di\nr/{name}": name.encode("utf-8", "surrogateescape") for name in names}
    content["li\nnk"] = Symlink('to "a"\nb')
    image = build_image(tmp_path / "image", fstype=fstype, content=content)
    if fstype == "squashfs":
        listing = programs.run(["unsquashfs", "-l", str(image)])
        assert all(f"/di\nr/{name}\n".encode("utf-8", "surrogateescape") in listing for name in names)
        return
    read.ext_is_sound(image)
    folder = read.ext_facts(image, "")
    assert folder.mode == 0o755
    listing = programs.run(["debugfs", "-R", 'ls -p "/di\nr"', str(image)])
    sizes = {name: len(name.encode("utf-8", "surrogateescape")) for name in names}
    assert all(f"/{name}/{size}/\n".encode("utf-8", "surrogateescape") in listing for name, size in sizes.items())


@pytest.mark.needs("mke2fs", "debugfs")
def test_ext_keeps_extended_attributes(tmp_path: Path) -> None:
    content = {"ping": File(b"", xattrs={"user.origin": b"test", "security.capability": bytes(range(20))})}
    image = build_image(tmp_path / "image", fstype="ext4", content=content)
    assert b'user.origin (4) = "test"' in programs.run(["debugfs", "-R", "ea_list ping", str(image)])
    assert b"security.capability (20)" in programs.run(["debugfs", "-R", "ea_list ping", str(image)])
    read.ext_is_sound(image)


@pytest.mark.parametrize("fstype", [*EXT, XFS, EROFS, VFAT, SWAP])
def test_equal_input_gives_equal_bytes_whoever_builds(builder: Builder, tmp_path: Path, fstype: str) -> None:
    content = CONTENT if fstype not in {"vfat", "swap"} else {"a folder/b.txt": "x"} if fstype == "vfat" else None
    mine = build_image(tmp_path / "mine", fstype=fstype, content=content)
    assert digest(builder(fstype=fstype, content=content)) == digest(mine)


@pytest.mark.needs("mksquashfs")
def test_a_squashfs_is_equal_when_one_user_builds_it_twice(builder: Builder) -> None:
    assert digest(builder("1", fstype="squashfs", content=CONTENT)) == digest(
        builder("2", fstype="squashfs", content=CONTENT)
    )


@pytest.mark.parametrize("fstype", [*EXT, XFS, BTRFS, EROFS, VFAT, SWAP])
def test_other_content_or_label_gives_another_uuid(tmp_path: Path, fstype: str) -> None:
    sizes: dict[str, Any] = {"size": "2M"} if fstype == "swap" else {"content": {"a": "b"}}
    images = [
        build_image(tmp_path / "1", fstype=fstype),
        build_image(tmp_path / "2", fstype=fstype, **sizes),
        build_image(tmp_path / "3", fstype=fstype, label="OTHER"),
    ]
    assert len({blkid(image)["UUID"] for image in images}) == 3


@pytest.mark.parametrize("fstype", [*EXT, XFS, BTRFS, EROFS, VFAT, SWAP])
def test_label_uuid_and_type_are_those_asked_for(tmp_path: Path, fstype: str) -> None:
    uuid = "ABCD-1234" if fstype == "vfat" else "12345678-9abc-4def-8123-456789abcdef"
    found = blkid(build_image(tmp_path / "image", fstype=fstype, label="LAB 1", uuid=uuid))
    assert (found["TYPE"], found["UUID"]) == (fstype, uuid)
    # libblkid 2.38 does not read the label of erofs.
    assert found.get("LABEL", "LAB 1" if fstype == "erofs" else None) == "LAB 1"


@pytest.mark.needs("mkfs.erofs")
def test_the_label_of_an_erofs_is_in_its_superblock(tmp_path: Path) -> None:
    image = build_image(tmp_path / "image", fstype="erofs", label="lab")
    assert image.read_bytes()[1024 + 64 :][:16] == b"lab".ljust(16, b"\0")


@pytest.mark.parametrize("fstype", [EXT[2], XFS, BTRFS, VFAT])
def test_a_file_system_for_4096_byte_sectors_has_no_smaller_unit(tmp_path: Path, fstype: str) -> None:
    image = build_image(tmp_path / "image", fstype=fstype, content={"a": "b"}, sector_size=4096)
    assert int(blkid(image)["BLOCK_SIZE"]) == 4096


@pytest.mark.parametrize("fstype", [*EXT, XFS, BTRFS, EROFS, SQUASHFS])
def test_many_files_fit_the_size_that_is_computed(tmp_path: Path, fstype: str) -> None:
    content = {f"d{index % 7}/a file {index}".replace(" ", "_"): f"{index}" for index in range(400)}
    image = build_image(tmp_path / "image", fstype=fstype, content=content)
    assert FACTS_OF[fstype](image, "d3/a_file_395").mode == 0o644


@pytest.mark.needs("mkfs.vfat", "mtools")
def test_the_root_folder_of_a_small_vfat_has_room_for_all_names(tmp_path: Path) -> None:
    content = {f"{index:03} {'long name ' * 8}.txt": f"{index}" for index in range(120)}
    image = build_image(tmp_path / "image", fstype="vfat", content=content)
    assert read.vfat_data(image, f"119 {'long name ' * 8}.txt") == b"119"
    read.vfat_is_sound(image)


@pytest.mark.needs("mkfs.vfat", "mtools")
def test_vfat_has_the_times_asked_for(tmp_path: Path) -> None:
    content: dict[str, Any] = {"old": File("x", mtime=TIME), "folder": Directory(mtime=TIME), "new": "y"}
    image = build_image(tmp_path / "image", fstype="vfat", content=content)
    listing = programs.run(["mdir", "-i", str(image), "::/"]).decode()
    times = dict(re.findall(r"^(\w+) .* ([0-9-]{10} +[0-9]+:[0-9]+)", listing, re.MULTILINE))
    assert times == {"old": "2001-09-09   1:47", "folder": "2001-09-09   1:47", "new": "2020-01-01   0:00"}


@pytest.mark.parametrize("fstype", EVERY_KIND)
def test_a_missing_program_is_an_error_with_its_package(
    tmp_path: Path, fstype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "_SEARCH_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProgramFailed, match="not found; install package") as caught:
        build_image(tmp_path / "image", fstype=fstype)
    assert any(str(tmp_path / "image") in note for note in caught.value.__notes__)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fstype", "content", "reason"),
    [
        ("vfat", {"a": Symlink("b")}, "symbolic link"),
        ("vfat", {"a": "x", "b": Hardlink("a")}, "hard link"),
        ("vfat", {"a": Device("fifo")}, "named pipe"),
        ("vfat", {"a": File("x", uid=5)}, "owner 5:0"),
        ("vfat", {"a": File("x", mode=0o755)}, "mode 0o755"),
        ("vfat", {"a:b": "x"}, "none of"),
        ("vfat", {"a.": "x"}, "no last dot"),
        ("vfat", {"dir/A": "x", "dir/a": "y"}, "same name as 'dir/A'"),
        ("vfat", {"a": File("x", mtime=5)}, "1980"),
        ("vfat", {"\udcff": "x"}, "not UTF-8"),
        ("xfs", {"a b": "x"}, "white space"),
        ("xfs", {"a": Symlink("b c")}, "white space"),
        ("xfs", {"a": "x", "b": Hardlink("a")}, "hard link"),
        ("xfs", {"a": File("x", xattrs={"user.a": b"b"})}, "extended attributes"),
        ("btrfs", {"a": File("x", xattrs={"user.a": b"b"})}, "extended attributes"),
        ("erofs", {"a": File("x", xattrs={"user.a": b"b"})}, "extended attributes"),
        ("swap", {"a": "x"}, "swap space has no files"),
    ],
)
def test_what_a_file_system_cannot_hold_is_refused(
    tmp_path: Path, fstype: str, content: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RequestInvalid, match=reason):
        build_image(tmp_path / "image", fstype=fstype, content=content)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.needs("mke2fs", "debugfs")
def test_content_that_does_not_fit_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match="larger size"):
        build_image(tmp_path / "image", fstype="ext4", size="8M", content={"a": bytes(range(256)) * 40_000})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fstype", "size", "reason"),
    [
        pytest.param("xfs", "64M", "at least 300M"),
        pytest.param("ext4", "1M", "journal"),
        pytest.param("swap", "4K", "at least 40K"),
        pytest.param("btrfs", "16M", "takes", marks=needs("mkfs.btrfs")),
        pytest.param("squashfs", "4K", "takes", marks=needs("mksquashfs")),
        pytest.param("erofs", "4K", "takes", marks=needs("mkfs.erofs")),
    ],
)
def test_a_size_that_is_too_small_is_refused(tmp_path: Path, fstype: str, size: str, reason: str) -> None:
    data = b"".join(hashlib.sha256(str(index).encode()).digest() for index in range(1000))
    content = None if fstype == "swap" else {"a": data}
    with pytest.raises(RequestInvalid, match=reason):
        build_image(tmp_path / "image", fstype=fstype, size=size, content=content)


@pytest.mark.needs("mke2fs", "debugfs")
def test_options_reach_mkfs(tmp_path: Path) -> None:
    image = build_image(tmp_path / "image", fstype="ext4", mkfs_options=["-b", "2048", "-O", "^has_journal"])
    shown = programs.run(["dumpe2fs", "-h", str(image)]).decode()
    assert "has_journal" not in shown
    assert "Block size:               2048" in shown


@pytest.mark.needs("mkfs.btrfs")
def test_a_btrfs_with_a_tree_of_several_levels_has_its_owners(tmp_path: Path) -> None:
    content = {f"{index:04}": File(f"{index}", uid=index) for index in range(500)}
    image = build_image(tmp_path / "image", fstype="btrfs", content=content)
    read.btrfs_is_sound(image)
    assert read.btrfs_facts(image, "0499").uid == 499


def blkid(image: Path) -> dict[str, str]:
    text = programs.run(["blkid", "--probe", "--output", "export", str(image)]).decode()
    return {key: value.replace("\\ ", " ") for key, _, value in (line.partition("=") for line in text.splitlines())}


def digest(image: Path) -> str:
    return hashlib.sha256(image.read_bytes()).hexdigest()


def test_a_btrfs_that_mkfs_does_not_make_for_what_others_have_mounted_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkfs = tmp_path / "mkfs.btrfs"
    mkfs.write_text("#!/bin/sh\necho 'ERROR: cannot check mount status of x: Permission denied' >&2\nexit 1\n")
    mkfs.chmod(0o755)
    monkeypatch.setattr(programs, "_SEARCH_PATH", f"{tmp_path}:{programs._SEARCH_PATH}")
    with pytest.raises(ProgramFailed) as caught:
        build_image(tmp_path / "image", fstype="btrfs")
    assert any("losetup --list" in note for note in caught.value.__notes__)
