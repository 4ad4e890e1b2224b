"""What the helper opens and changes inside an image, with a folder of this test in place of the image's root."""

from __future__ import annotations

import base64
import errno
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.confined import CALLS
from pytest_imagemount.errors import RequestInvalid
from pytest_imagemount.helper import inside
from pytest_imagemount.helper.inside import change_inside, open_inside, xattrs_inside
from pytest_imagemount.helper.protocol import ChangeInside, OpenInside, XattrsInside
from tests.confinement import assert_confined

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", autouse=True)
def resolver_confines(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Before any of these tests writes."""
    assert_confined(tmp_path_factory.mktemp("confined"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """``root/`` with files, and a file beside it."""
    (tmp_path / "outside").write_text("outside")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hostname").write_text("web01")
    (root / "absolute").symlink_to("/etc/hostname")
    (root / "out").symlink_to("../../../outside")
    (root / "dangling").symlink_to("/etc/made")
    (root / "loop").symlink_to("loop")
    (root / "magic").symlink_to("/proc/self/root")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(root / "socket"))
    return root


@pytest.fixture
def root(tree: Path) -> Iterator[int]:
    fd = os.open(tree, os.O_PATH)
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield fd
    assert len(list(Path("/proc/self/fd").iterdir())) == before, "a descriptor was left open"
    os.close(fd)


def opened(root: int, path: str, flags: int, mode: int = 0) -> tuple[bytes, int]:
    """Content, and the flags that the descriptor has."""
    fd = open_inside(root, OpenInside(1, path, flags, mode))
    try:
        assert not os.get_inheritable(fd)
        return os.pread(fd, 100, 0) if flags & os.O_ACCMODE == os.O_RDONLY else b"", os.fstat(fd).st_mode
    finally:
        os.close(fd)


def refusal(root: int, path: str, flags: int) -> int | None:
    with pytest.raises(OSError) as caught:
        opened(root, path, flags, 0o600)
    return caught.value.errno


@pytest.mark.parametrize("path", ["/etc/hostname", "etc/hostname", "/absolute", "/../etc/./hostname"])
def test_a_file_is_read(root: int, path: str) -> None:
    assert opened(root, path, os.O_RDONLY | os.O_NONBLOCK)[0] == b"web01"


@pytest.mark.parametrize(
    ("path", "flags", "number"),
    [
        ("/out", os.O_RDONLY, errno.ENOENT),
        ("/magic/etc/passwd", os.O_RDONLY, errno.ENOENT),
        ("/none", os.O_RDONLY, errno.ENOENT),
        ("/loop", os.O_RDONLY, errno.ELOOP),
        ("/absolute", os.O_RDONLY | os.O_NOFOLLOW, errno.ELOOP),
        ("/etc/hostname", os.O_RDONLY | os.O_DIRECTORY, errno.ENOTDIR),
        ("/etc", os.O_WRONLY, errno.EISDIR),
        ("/etc", os.O_RDONLY | os.O_CREAT, errno.EISDIR),
        ("/etc/hostname", os.O_WRONLY | os.O_CREAT | os.O_EXCL, errno.EEXIST),
        ("/dangling", os.O_WRONLY | os.O_CREAT | os.O_EXCL, errno.EEXIST),
        # Neither is waited for.
        ("/fifo", os.O_RDONLY, errno.ENXIO),
        ("/fifo", os.O_RDWR | os.O_NONBLOCK, errno.ENXIO),
        ("/socket", os.O_RDONLY, errno.ENXIO),
    ],
)
def test_what_is_not_opened(root: int, path: str, flags: int, number: int) -> None:
    assert refusal(root, path, flags) == number


def test_another_mount_is_not_entered() -> None:
    machine = os.open("/", os.O_PATH)
    try:
        assert refusal(machine, "/proc/self/status", os.O_RDONLY) == errno.EXDEV
        assert refusal(machine, "/proc/self/status", os.O_PATH) == errno.EXDEV
        with pytest.raises(OSError) as caught:
            change_inside(machine, ChangeInside(1, "chmod", "/proc/self/status", "", 0o777))
        assert caught.value.errno == errno.EXDEV
    finally:
        os.close(machine)


def test_a_device_is_not_opened(tmp_path: Path) -> None:
    # On the file system of /dev itself, so that no mount is in the way.
    dev = os.open("/dev", os.O_PATH)
    try:
        assert refusal(dev, "null", os.O_RDONLY) == errno.ENXIO
        assert refusal(dev, "null", os.O_WRONLY | os.O_CREAT) == errno.ENXIO
    finally:
        os.close(dev)


@pytest.mark.parametrize("path", ["/etc/new", "/dangling"])
def test_a_file_is_made_with_the_mode_that_was_asked_for(root: int, tree: Path, path: str) -> None:
    umask = os.umask(0o077)
    try:
        opened(root, path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o646)
    finally:
        assert os.umask(umask) == 0o077
    made = tree / ("etc/new" if path == "/etc/new" else "etc/made")
    assert made.stat().st_mode & 0o7777 == 0o646


def test_a_file_is_emptied_and_appended_to(root: int, tree: Path) -> None:
    fd = open_inside(root, OpenInside(1, "/etc/hostname", os.O_WRONLY | os.O_APPEND, 0))
    os.write(fd, b".example")
    os.close(fd)
    assert (tree / "etc/hostname").read_text() == "web01.example"
    opened(root, "/etc/hostname", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    assert (tree / "etc/hostname").read_text() == ""


@pytest.mark.parametrize("flags", [-1, os.O_TMPFILE | os.O_RDWR, os.O_ACCMODE, os.O_DIRECT, os.O_ASYNC, 1 << 40])
def test_flags_that_are_not_the_clients_are_refused(root: int, flags: int) -> None:
    with pytest.raises(RequestInvalid, match="flags="):
        open_inside(root, OpenInside(1, "/etc", flags, 0))


@pytest.mark.parametrize("mode", [-1, 0o10000, 1 << 40])
def test_a_mode_is_permission_bits(root: int, mode: int) -> None:
    with pytest.raises(RequestInvalid, match="mode="):
        open_inside(root, OpenInside(1, "/etc/new", os.O_CREAT | os.O_WRONLY, mode))
    with pytest.raises(RequestInvalid, match="mode="):
        change_inside(root, ChangeInside(1, "mkdir", "/new", "", mode))


def test_the_tree_is_changed(root: int, tree: Path) -> None:
    for change in (
        ("mkdir", "/new", "", 0o751),
        ("symlink", "/new/link", "/etc/hostname", 0),
        ("rename", "/etc/hostname", "/new/name", 0),
        ("chmod", "/new/name", "", 0o604),
        ("touch", "/new/name", "", 0),
        ("unlink", "/new/link", "", 0),
        ("rmdir", "/etc", "", 0),
    ):
        change_inside(root, ChangeInside(1, *change))
    assert (tree / "new").stat().st_mode & 0o7777 == 0o751
    assert (tree / "new/name").stat().st_mode & 0o7777 == 0o604
    assert [path.name for path in (tree / "new").iterdir()] == ["name"]
    assert not (tree / "etc").exists()


@pytest.mark.parametrize("call", [call for call in CALLS if call not in ("chmod", "touch")])
@pytest.mark.parametrize("path", ["/", "/etc/..", "/.."])
def test_the_root_itself_is_not_changed(root: int, tree: Path, call: str, path: str) -> None:
    outside = sorted(tree.parent.rglob("*"))
    with pytest.raises(OSError) as caught:
        change_inside(root, ChangeInside(1, call, path, "/etc/hostname", 0o700))
    assert caught.value.errno in (errno.EBUSY, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY)
    assert sorted(tree.parent.rglob("*")) == outside


@pytest.mark.parametrize("call", ["chmod", "touch"])
def test_a_link_that_leads_out_changes_nothing(root: int, tree: Path, call: str) -> None:
    before = (tree.parent / "outside").stat()
    with pytest.raises(FileNotFoundError):
        change_inside(root, ChangeInside(1, call, "/out", "", 0o777))
    after = (tree.parent / "outside").stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_there_are_no_other_changes(root: int) -> None:
    with pytest.raises(RequestInvalid, match="call='chown'"):
        change_inside(root, ChangeInside(1, "chown", "/etc", "", 0))


# Extended attributes


def attributes(root: int, *paths: str, follow: bool = False) -> list[dict[str, object]]:
    """A decoded line for each path that the reply has."""
    with os.fdopen(xattrs_inside(root, XattrsInside(1, paths, follow)), "rb") as reply:
        return [json.loads(line) for line in reply]


def test_attributes_are_read_of_what_is_inside_and_refusals_are_told(root: int) -> None:
    paths = ("/etc/hostname", "/none", "/out", "/loop", "/fifo", "/magic/etc/passwd", "/")
    answers = attributes(root, *paths, follow=True)
    assert [answer.get("errno", 0) for answer in answers] == [
        0,
        errno.ENOENT,
        errno.ENOENT,
        errno.ELOOP,
        0,
        errno.ENOENT,
        0,
    ]
    assert [answer.get("errno", 0) for answer in attributes(root, *paths[:4])] == [0, errno.ENOENT, 0, 0], (
        "of the links"
    )


def test_attributes_of_another_mount_are_not_read() -> None:
    machine = os.open("/", os.O_PATH)
    try:
        assert attributes(machine, "/proc/self/status")[0]["errno"] == errno.EXDEV
    finally:
        os.close(machine)


def test_a_reply_that_grows_large_ends_early(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside, "read_xattrs", lambda _, most: {"user.a": bytes(1 << 20)})
    assert len(attributes(root, *["/etc/hostname"] * 10)) == 3
    assert base64.b64decode(str(attributes(root, "/etc")[0]["xattrs"]["user.a"])) == bytes(1 << 20)  # type: ignore[index]
