"""ImagePath against the kernel: equal to a chroot, never out of the image, never in the way of the unmount."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pytest_imagemount.engine import syscalls
from pytest_imagemount.errors import ImageUnmounted
from pytest_imagemount.mounted_image import MountedImage
from tests.confinement import assert_confined
from tests.unit.trees import facts_of

from . import chroot_oracle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MountImage = Callable[[str], MountedImage]

CANARY = "this text is outside of the image"
RACE_SECONDS = 1.0


@pytest.fixture(scope="module", autouse=True)
def resolver_confines(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Before any of these tests writes."""
    assert_confined(tmp_path_factory.mktemp("confinement"))


def mounted(folder: Path, mode: str = "rw", release: Callable[[], None] = lambda: None) -> MountedImage:
    return MountedImage(facts_of(folder, mode=mode), release)


# Equal to a chroot

NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.sampled_from(["a", "b", "c", "..", "."])
# {outside} becomes the folder with the canary; followed on this machine, each of these leads there.
WAYS_OUT = st.sampled_from(
    [
        "{outside}",
        "{outside}/canary",
        "../../../../../../../../..{outside}/canary",
        "/proc/self/root{outside}/canary",
        "/proc/self/root",
        "/proc/self/cwd",
        "/../..{outside}",
    ]
)
TARGETS = st.one_of(
    st.lists(STEPS, min_size=1, max_size=4).map("/".join),
    st.lists(STEPS, max_size=3).map(lambda steps: "/" + "/".join(steps)),
    WAYS_OUT,
)
INSIDE = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
NODES = st.tuples(INSIDE, st.one_of(st.just(("folder", "")), st.just(("file", "")), TARGETS.map(lambda t: ("link", t))))
TREES = st.lists(NODES, min_size=1, max_size=12)
PATHS = st.lists(STEPS, max_size=5).map(lambda steps: "/" + "/".join(steps))
PATTERNS = st.sampled_from(["*", "*/*", "**/*", "**/a*", "**/[bc]/*", "a/*", "*/b*", "**/a/**/*"])
CHANGES = st.one_of(
    st.tuples(st.just("write"), PATHS, st.sampled_from(["", "new"])),
    st.tuples(st.sampled_from(["mkdir", "rmdir", "unlink", "touch"]), PATHS),
    st.tuples(st.just("chmod"), PATHS, st.sampled_from([0o600, 0o755])),
    st.tuples(st.just("symlink"), PATHS, TARGETS),
    st.tuples(st.sampled_from(["rename", "link"]), PATHS, PATHS),
)

Tree = list[tuple[str, tuple[str, str]]]
checked = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class Chroot:
    """The oracle, and a place for trees next to a canary."""

    def __init__(self, folder: Path) -> None:
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "canary").write_text(CANARY)
        self._folder, self._count = folder, 0
        self.program = subprocess.Popen(
            [sys.executable, chroot_oracle.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, root: Path, calls: list[list[Any]]) -> list[list[Any]]:
        assert self.program.stdin is not None
        assert self.program.stdout is not None
        self.program.stdin.write(json.dumps({"root": str(root), "calls": calls}) + "\n")
        self.program.stdin.flush()
        found: list[list[Any]] = json.loads(self.program.stdout.readline())
        return found

    def build(self, tree: Tree) -> Path:
        """A new folder with the nodes of the tree, without those that clash with an earlier one."""
        self._count += 1
        root = self._folder / f"tree{self._count}"
        root.mkdir()
        for name, (kind, target) in tree:
            path = root / name
            # Not through a link that was made before: that would build outside.
            if any(parent.is_symlink() for parent in (path, *path.parents)) or path.exists():
                continue
            if any(parent.is_file() for parent in path.parents):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            match kind:
                case "folder":
                    path.mkdir()
                case "file":
                    path.write_text(f"content of {name}")
                case "link":
                    path.symlink_to(target.format(outside=self.outside))
        return root

    def assert_untouched(self) -> None:
        assert [path.name for path in self.outside.iterdir()] == ["canary"]
        assert (self.outside / "canary").read_text() == CANARY
        assert stat.S_IMODE((self.outside / "canary").stat().st_mode) == 0o644


@pytest.fixture
def chroot(tmp_path: Path) -> Iterator[Chroot]:
    before = os.umask(0o022)
    chroot = Chroot(tmp_path)
    with chroot.program:
        yield chroot
        assert chroot.program.stdin is not None
        chroot.program.stdin.close()
    os.umask(before)


def image_call(image: MountedImage, name: str, *args: Any) -> Any:
    """One operation as ImagePath does it, in the form of :func:`chroot_oracle.call`."""
    path = image / args[0]
    match name:
        case "stat":
            return chroot_oracle.status(path.stat())
        case "lstat":
            return chroot_oracle.status(path.lstat())
        case "readlink":
            return str(path.readlink())
        case "read":
            return path.read_text()
        case "names":
            return [entry.name for entry in path.iterdir()]
        case "walk":
            return sorted([str(folder), folders, files] for folder, folders, files in path.walk())
        case "resolve":
            return str(path.resolve(strict=True))
        case "exists":
            return path.exists()
        case "samefile":
            return path.samefile(args[1])
        case "glob":
            return sorted(str(found) for found in path.glob(args[1]))
        case "write":
            return path.write_text(args[1])
        case "mkdir":
            return path.mkdir()
        case "rmdir":
            return path.rmdir()
        case "unlink":
            return path.unlink()
        case "touch":
            return path.touch()
        case "chmod":
            return path.chmod(args[1])
        case "symlink":
            return path.symlink_to(args[1])
        case "link":
            return path.hardlink_to(args[1])
        case "rename":
            path.rename(args[1])
            return None
    raise AssertionError(name)


def image_answers(root: Path, calls: list[list[Any]]) -> list[list[Any]]:
    image = mounted(root)
    filenames: list[str] = []
    found: list[list[Any]] = []
    for name, *args in calls:
        try:
            found.append(["value", image_call(image, name, *args)])
        except OSError as error:
            filenames.append(str(error.filename))
            found.append(["errno", error.errno])
    image.unmount()
    assert all(filename.startswith("disk.raw:/") for filename in filenames), filenames
    return found


def status_by_fspath(root: Path, name: str) -> list[int]:
    """What plain os.stat says of the name that the path gives to other programs."""
    image = mounted(root)
    place = os.fspath(image / name)
    image.unmount()
    return chroot_oracle.status(Path(place).stat())


def assert_equal(calls: list[list[Any]], inside: list[list[Any]], expected: list[list[Any]]) -> None:
    differences = [
        f"{' '.join(map(str, each))}: ImagePath {ours}, chroot {theirs}"
        for each, ours, theirs in zip(calls, inside, expected, strict=True)
        if ours != theirs
    ]
    assert not differences, "\n".join(differences)


def snapshot(root: Path) -> dict[str, tuple[int, str]]:
    """Mode and content or target of everything in the tree."""
    found = {}
    for folder, folders, files in os.walk(root):
        for path in (Path(folder, name) for name in folders + files):
            mode = path.lstat().st_mode
            content = ""
            if stat.S_ISLNK(mode):
                content = str(path.readlink())
            elif stat.S_ISREG(mode):
                content = path.read_text()
            found[str(path.relative_to(root))] = (mode, content)
    return found


@pytest.mark.needs("root")
@checked
@given(tree=TREES, paths=st.lists(PATHS, min_size=1, max_size=6), patterns=st.lists(PATTERNS, max_size=3))
@example(tree=[("a", ("link", "b")), ("b", ("link", "a"))], paths=["/a", "/a/c", "/b/.."], patterns=["*/*"])
@example(tree=[("a", ("link", "{outside}"))], paths=["/a", "/a/canary", "/a/.."], patterns=["a/*", "**/*"])
@example(tree=[("a", ("file", ""))], paths=["/a/..", "/a/b", "/a/../a"], patterns=["a/*"])
def test_reading_is_what_a_chroot_gives(chroot: Chroot, tree: Tree, paths: list[str], patterns: list[str]) -> None:
    root = chroot.build(tree)
    # The text that both get is the one that pathlib makes of it: without "." and without a slash at the end.
    names = [str(Path(path)) for path in paths]
    calls = [each for name in names for each in chroot_oracle.tell(name)]
    calls += [["samefile", one, other] for one in names for other in names]
    calls += [["glob", name, pattern] for name in names for pattern in patterns]
    inside = image_answers(root, calls)
    assert CANARY not in repr(inside)
    assert_equal(calls, inside, chroot.ask(root, calls))
    for (name, path, *_), (kind, value) in zip(calls, inside, strict=True):
        if (name, kind) == ("stat", "value"):
            assert status_by_fspath(root, path) == value
    chroot.assert_untouched()


@pytest.mark.needs("root")
@checked
@given(tree=TREES, changes=st.lists(CHANGES, min_size=1, max_size=8))
@example(
    tree=[("a", ("link", "{outside}/canary"))], changes=[("write", "/a", "new"), ("touch", "/a"), ("unlink", "/a")]
)
@example(tree=[("a", ("link", "/b"))], changes=[("write", "/a", "new"), ("chmod", "/a", 0o600), ("rename", "/a", "/c")])
@example(tree=[("a", ("link", "{outside}"))], changes=[("mkdir", "/a/b"), ("symlink", "/a/b", "c"), ("rmdir", "/a")])
def test_writing_is_what_a_chroot_does(chroot: Chroot, tree: Tree, changes: list[tuple[Any, ...]]) -> None:
    ours, theirs = chroot.build(tree), chroot.build(tree)
    calls: list[list[Any]] = []
    for name, path, *args in changes:
        formatted = [arg.format(outside=chroot.outside) if isinstance(arg, str) else arg for arg in args]
        if name in ("rename", "link"):
            formatted = [str(Path(arg)) for arg in formatted]
        calls.append([name, str(Path(path)), *formatted])
    assert_equal(calls, image_answers(ours, calls), chroot.ask(theirs, calls))
    assert snapshot(ours) == snapshot(theirs)
    chroot.assert_untouched()


# Changes at the same time

SWAP_WITH_LINK = """
import os, sys
folder, link, spare = sys.argv[1:]
print("ready", flush=True)
while True:
    os.rename(folder, spare); os.rename(link, folder)
    os.rename(folder, link); os.rename(spare, folder)
"""
MOVE_OUT = """
import os, sys
inside, outside = sys.argv[1:]
print("ready", flush=True)
while True:
    os.rename(inside, outside); os.rename(outside, inside)
"""


@contextmanager
def endless(script: str, *args: Path) -> Iterator[None]:
    """The script runs in a process of its own for the time of the block, and fails the test if it ended by itself."""
    with subprocess.Popen([sys.executable, "-c", script, *map(str, args)], stdout=subprocess.PIPE) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == b"ready\n"
            yield
            assert program.poll() is None, "the script that changes the tree must run to the end of the test"
        finally:
            program.kill()


def repeat(seconds: float, *actions: Callable[[], object]) -> dict[str, int]:
    """The actions in turn until the time is up; how often each kind of outcome was seen."""
    seen: dict[str, int] = {}
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for action in actions:
            try:
                result = action()
                assert CANARY not in str(result)
                outcome = "done"
            except OSError as error:
                outcome = errno.errorcode[error.errno or 0]
            seen[outcome] = seen.get(outcome, 0) + 1
    return seen


@pytest.mark.timeout(60)
def test_a_folder_that_is_swapped_for_a_link_never_leads_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "file").write_text(CANARY)
    (outside / "inner/file").write_text(CANARY)
    for file in (outside / "file", outside / "inner/file"):
        file.chmod(0o640)
    tree = tmp_path / "tree"
    (tree / "folder/inner").mkdir(parents=True)
    (tree / "folder/file").write_text("inside")
    (tree / "folder/inner/file").write_text("inside")
    (tree / "link").symlink_to(outside)
    image = mounted(tree)
    root, folder = image / "", image / "folder"

    def contents() -> list[str]:
        return [path.read_text() for path in root.rglob("fil*")]

    def walked() -> list[str]:
        return [(top / name).read_text() for top, _, names in root.walk() for name in names if name != "link"]

    def listed() -> list[str]:
        found = [str(facts) for facts in image.manifest()]
        assert hashlib.sha256(CANARY.encode()).hexdigest() not in {each.sha256 for each in image.manifest()}
        return found

    def write() -> None:
        (folder / "inner/file").write_text("inside again")

    def make_and_remove() -> None:
        (folder / "new").mkdir()
        (folder / "new").rmdir()

    def move() -> None:
        (folder / "file").rename("folder/inner/moved").rename("folder/file")

    with endless(SWAP_WITH_LINK, tree / "folder", tree / "link", tree / "spare"):
        seen = repeat(
            RACE_SECONDS,
            (folder / "file").read_text,
            (folder / "inner/file").read_text,
            (folder / "file").sha256,
            lambda: (folder / "../folder/file").read_text(),
            lambda: list(folder.iterdir()),
            lambda: (folder / "file").chmod(0o600),
            contents,
            walked,
            listed,
            (folder / "file").facts,
            (folder / "inner/file").xattrs,
            write,
            make_and_remove,
            move,
            (folder / "inner/file").touch,
        )
    image.unmount()
    assert seen["done"] > 10, seen
    assert seen["ENOENT"] > 10, "the swap must have been met, or this shows nothing"
    assert sorted(str(path.relative_to(outside)) for path in outside.rglob("*")) == ["file", "inner", "inner/file"]
    for file in (outside / "file", outside / "inner/file"):
        assert file.read_text() == CANARY
        assert stat.S_IMODE(file.stat().st_mode) == 0o640, "chmod must not have reached it"


@pytest.mark.timeout(60)
def test_a_folder_that_is_moved_out_during_dots_never_leads_out(tmp_path: Path) -> None:
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    (tree / "a/b/c/d").mkdir(parents=True)
    outside.mkdir()
    (tmp_path / "canary").write_text(CANARY)
    (outside / "canary").write_text(CANARY)
    image = mounted(tree)
    paths = [image / "a/b/c/d" / ("../" * steps + "canary") for steps in range(1, 7)]
    with endless(MOVE_OUT, tree / "a/b/c", outside / "c"):
        seen = repeat(
            RACE_SECONDS,
            *(path.read_text for path in paths),
            *(path.exists for path in paths),
            lambda: (image / "a/b/c/d").stat() and None,
        )
    image.unmount()
    assert seen["done"] > 10, seen
    assert seen["ENOENT"] > 10, seen


@pytest.mark.timeout(60)
def test_an_unmount_beside_readers_ends_them_with_a_clear_error_and_no_other_file(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text("web01")
    for _ in range(20):
        image = mounted(tree)
        outcomes: list[str] = []

        def read(path: Any = image / "etc/hostname", outcomes: list[str] = outcomes) -> None:
            try:
                while True:
                    assert path.read_text() == "web01"
            except ImageUnmounted:
                outcomes.append("unmounted")

        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        image.unmount()
        for reader in readers:
            reader.join()
        assert outcomes == ["unmounted"] * 4


# On a mount


@pytest.fixture
def mountpoint(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with a few files, as an image is mounted: nosuid, nodev."""
    folder = tmp_path / "mountpoint"
    folder.mkdir()
    syscalls.mount("none", str(folder), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "size=1m")
    try:
        (folder / "etc").mkdir()
        for name in ("hostname", "issue", "motd"):
            (folder / "etc" / name).write_text(name)
        yield folder
    finally:
        if folder.is_mount():
            syscalls.umount2(str(folder))


@pytest.fixture
def mount_image(mountpoint: Path) -> Iterator[MountImage]:
    """Gives the mount as an image, and unmounts it also where the test failed."""
    images: list[MountedImage] = []

    def mount_image(mode: str) -> MountedImage:
        images.append(mounted(mountpoint, mode, release=lambda: syscalls.umount2(str(mountpoint))))
        return images[-1]

    yield mount_image
    for image in images:
        image.unmount()


@pytest.mark.needs("root")
def test_suspended_generators_do_not_keep_the_image_busy(mountpoint: Path, mount_image: MountImage) -> None:
    image = mount_image("rw")
    root = image / ""
    generators: list[Iterator[object]] = [
        (image / "etc").iterdir(),
        root.glob("*/*"),
        root.rglob("*"),
        root.walk(),
        root.walk(top_down=False),
    ]
    for generator in generators:
        next(generator)
    image.unmount()
    assert not mountpoint.is_mount()
    assert len(generators) == 5


@pytest.mark.needs("root")
def test_an_open_file_keeps_the_image_busy_until_it_is_closed(mountpoint: Path, mount_image: MountImage) -> None:
    image = mount_image("rw")
    with (image / "etc/hostname").open() as file:
        with pytest.raises(OSError) as caught:
            image.unmount()
        assert caught.value.errno == errno.EBUSY
        assert image.mounted
        assert file.read() == "hostname"
    image.unmount()
    assert not mountpoint.is_mount()


@pytest.mark.needs("root")
def test_a_read_only_image_refuses_every_write_and_says_what_to_do(mountpoint: Path, mount_image: MountImage) -> None:
    flags = syscalls.MS_REMOUNT | syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV
    syscalls.mount("none", str(mountpoint), "tmpfs", flags, "")
    image = mount_image("ro")
    path, new = image / "etc/hostname", image / "etc/new"
    writes: list[Callable[[], object]] = [
        lambda: path.write_text("x"),
        lambda: path.write_bytes(b"x"),
        lambda: path.open("r+"),
        lambda: new.write_text("x"),
        path.touch,
        new.touch,
        path.unlink,
        (image / "etc").rmdir,
        new.mkdir,
        lambda: path.chmod(0o600),
        lambda: new.symlink_to("x"),
        lambda: path.rename(new),
        lambda: new.hardlink_to(path),
    ]
    for write in writes:
        with pytest.raises(OSError) as caught:
            write()
        assert caught.value.errno == errno.EROFS
        assert str(caught.value.filename) in ("disk.raw:/etc/hostname", "disk.raw:/etc/new", "disk.raw:/etc")
        assert "mode='overlay'" in caught.value.__notes__[0]
    (image / "etc").mkdir(exist_ok=True)


@pytest.mark.needs("root")
def test_device_nodes_of_an_image_are_not_opened(mountpoint: Path, mount_image: MountImage) -> None:
    os.mknod(mountpoint / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(mountpoint / "disk", stat.S_IFBLK | 0o666, os.makedev(7, 0))
    image = mount_image("rw")
    assert (image / "null").is_char_device()
    assert (image / "disk").is_block_device()
    for name, kind in {"null": "character", "disk": "block"}.items():
        for mode in ("rb", "r+b"):
            with pytest.raises(OSError, match=f"{kind} device node") as caught:
                (image / name).open(mode)
            assert caught.value.errno == errno.ENXIO


@pytest.mark.needs("root")
def test_magic_links_of_a_proc_inside_the_image_are_refused(
    mountpoint: Path, mount_image: MountImage, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    canary.write_text(CANARY)
    proc = mountpoint / "proc"
    proc.mkdir()
    syscalls.mount("proc", str(proc), "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC, "")
    image = mount_image("rw")
    try:
        assert (proc / f"self/root{canary}").read_text() == CANARY
        assert (image / "proc").is_mount()
        assert not (image / "etc").is_mount()
        for text in (f"proc/self/root{canary}", f"proc/self/cwd/{os.path.relpath(canary)}", "proc/self/exe"):
            with pytest.raises(OSError) as caught:
                (image / text).read_bytes()
            assert caught.value.errno == errno.ELOOP
    finally:
        syscalls.umount2(str(proc))


@pytest.mark.needs("root")
def test_what_the_user_may_not_read_is_an_error_and_not_absent(mountpoint: Path, mount_image: MountImage) -> None:
    (mountpoint / "etc/shadow").touch(mode=0o600)
    (mountpoint / "root").mkdir(mode=0o700)
    (mountpoint / "root/file").touch()
    for folder in mountpoint.parents[:-2]:  # pytest's folders are closed to other users; that of a real mount is not
        folder.chmod(0o711)
    image = mount_image("rw")
    operations: list[Callable[[], object]] = [
        (image / "etc/shadow").read_text,
        (image / "root/file").exists,
        (image / "root/file").stat,
        lambda: list((image / "").rglob("*")),
        lambda: list((image / "").walk()),
    ]
    with file_access_of(65534):
        for operation in operations:
            with pytest.raises(PermissionError) as caught:
                operation()
            assert str(caught.value.filename).startswith("disk.raw:/")
        assert (image / "etc/shadow").exists()
    assert (image / "root/file").exists()


@contextmanager
def file_access_of(uid: int) -> Iterator[None]:
    """This thread opens files as user ``uid``: setfsuid(2) takes the capabilities of file access away as well."""
    syscalls.libc().setfsuid(uid)
    try:
        yield
    finally:
        syscalls.libc().setfsuid(0)
