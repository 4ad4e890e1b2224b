"""ImagePath, MountedImage and BlockDevice on a plain folder: they need no real mount."""

from __future__ import annotations

import errno
import hashlib
import inspect
import json
import os
import pickle
import socket
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.confined import open_below
from pytest_imagemount.engine import syscalls
from pytest_imagemount.errors import CapabilityMissing, ImageMountError, ImageUnmounted
from pytest_imagemount.facts import DeviceFacts, MountFacts
from pytest_imagemount.image_root import LocalOpener
from pytest_imagemount.manifest import Manifest
from pytest_imagemount.mounted_image import BlockDevice, MountedImage
from tests.confinement import assert_confined
from tests.unit.trees import facts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pytest_imagemount.confined import Change
    from pytest_imagemount.image_path import ImagePath

CANARY = "this text is outside of the image"


@pytest.fixture(scope="module", autouse=True)
def resolver_confines(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Before any of these tests writes."""
    assert_confined(tmp_path_factory.mktemp("confinement"))


def mount_facts(mountpoint: Path, mode: str = "rw") -> MountFacts:
    return facts_of(
        mountpoint,
        source=Path("/images/disk.qcow2"),
        format="qcow2",
        partition=2,
        label="root",
        uuid="0b4c5c4e-8f0a-4f3c-9d57-0d3f0f1c2a11",
        mode=mode,
        backend="fuse",
    )


def nothing() -> None:
    pass


def state(held: MountedImage | BlockDevice) -> str:
    """In a word; a function, as mypy takes a property that was compared once to keep its value."""
    if isinstance(held, MountedImage):
        return "mounted" if held.mounted else "unmounted"
    return "attached" if held.attached else "detached"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The folder that stands for the mount point, next to a canary file that must never be reached."""
    (tmp_path / "canary").write_text(CANARY)
    tree = tmp_path / "mountpoint"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/hostname").write_text("web01\n")
    (tree / "usr/lib/deep").mkdir(parents=True)
    (tree / "usr/lib/os-release").write_text("ID=test\n")
    (tree / "usr/lib/deep/a.conf").write_text("")
    (tree / "usr/.hidden.conf").write_text("")
    (tree / "lib").symlink_to("usr/lib")
    (tree / "etc/os-release").symlink_to("/usr/lib/os-release")
    (tree / "etc/dangling").symlink_to("/no/such")
    (tree / "loop").symlink_to("loop")
    return tree


@pytest.fixture
def image(tree: Path) -> Iterator[MountedImage]:
    image = MountedImage(mount_facts(tree), nothing)
    yield image
    image.unmount()


def held(tree: Path) -> list[str]:
    """The descriptors of this process that are of files in the tree."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(each.readlink()))
    return sorted(path for path in found if path.startswith(str(tree)))


def texts(paths: Iterator[ImagePath]) -> list[str]:
    return [str(path) for path in paths]


# The text of a path


@pytest.mark.parametrize(
    "text", ["etc/hostname", "/etc/hostname", "//etc/hostname", "etc//./hostname/", "///etc/hostname"]
)
def test_absolute_and_relative_text_name_the_same_file(image: MountedImage, text: str) -> None:
    path = image / text
    assert str(path) == "/etc/hostname"
    assert repr(path) == "ImagePath('disk.qcow2 partition 2', '/etc/hostname')"
    assert path == image / "etc" / "hostname"
    assert hash(path) == hash(image / "etc" / "hostname")
    assert path.read_text() == "web01\n"


def test_joining_an_absolute_path_starts_again_at_the_root_of_the_image(image: MountedImage) -> None:
    assert image / "usr/lib" / "/etc" == image / "etc"
    assert image / "usr" / "//etc" == image / "etc"
    assert (image / "usr").joinpath("lib", PurePosixPath("deep")) == image / "usr/lib/deep"
    assert image / "usr" / (image / "etc") == image / "etc"


def test_dots_are_left_to_the_kernel(image: MountedImage) -> None:
    path = image / "lib" / ".." / "lib"
    assert str(path) == "/lib/../lib"
    assert path.samefile("usr/lib"), "lib is a link to usr/lib, so that its parent is usr"
    assert str(path.parent) == "/lib/.."
    assert (image / ".." / ".." / "etc/hostname").read_text() == "web01\n"


@pytest.mark.parametrize("text", ["/", "/etc/a.tar.gz", "/etc/.hidden", "/a/b/../c", "/usr/lib/x.so"])
def test_text_operations_are_those_of_pathlib(image: MountedImage, text: str) -> None:
    path, pure = image / text, PurePosixPath(text)
    for name in ("name", "stem", "suffix", "suffixes", "parts"):
        assert getattr(path, name) == getattr(pure, name)
    assert str(path.parent) == str(pure.parent)
    assert [str(parent) for parent in path.parents] == [str(parent) for parent in pure.parents]
    for pattern in ("*.gz", "etc/*", "/etc/*", "lib/*.so"):
        assert path.match(pattern) == pure.match(pattern)
    if pure.name:
        assert str(path.with_name("n")) == str(pure.with_name("n"))
        assert str(path.with_stem("n")) == str(pure.with_stem("n"))
        assert str(path.with_suffix(".n")) == str(pure.with_suffix(".n"))
        assert path.relative_to("/") == path.relative_to(image / "") == pure.relative_to("/")


def test_relative_to_needs_a_common_start(image: MountedImage) -> None:
    assert (image / "etc/hostname").relative_to("etc") == PurePosixPath("hostname")
    assert (image / "etc/hostname").is_relative_to("/etc")
    assert not (image / "etc/hostname").is_relative_to("usr")
    with pytest.raises(ValueError):
        (image / "etc/hostname").relative_to("usr")


def test_paths_sort_and_compare_within_their_image_only(image: MountedImage, tree: Path) -> None:
    other = MountedImage(mount_facts(tree), nothing)
    assert sorted([image / "b", image / "a/c", image / "a"]) == [image / "a", image / "a/c", image / "b"]
    assert image / "a" != other / "a"
    assert len({image / "a", image / "/a", other / "a"}) == 2
    assert image / "a" != "/a"
    with pytest.raises(TypeError):
        sorted([image / "a", other / "a"])
    with pytest.raises(ValueError, match="another image"):
        image / "a" / (other / "b")
    other.unmount()


def test_a_path_is_not_bytes_and_does_not_pickle(image: MountedImage) -> None:
    with pytest.raises(TypeError, match="bytes"):
        image / os.fsencode("etc")  # type: ignore[operator]
    with pytest.raises(TypeError, match="only in the process"):
        pickle.dumps(image / "etc")


LEFT_OUT = {"cwd", "home", "expanduser", "as_uri", "from_uri", "is_reserved", "lchmod", "with_segments", "parser"}
LEFT_OUT |= {"copy", "copy_into", "move", "move_into", "info"}  # Python 3.14
LEFT_OUT |= {"link_to"}  # Python 3.11


def test_every_name_that_pathlib_has_is_there_or_left_out_on_purpose(image: MountedImage) -> None:
    names = {name for name in dir(Path) if not name.startswith("_")}
    assert {name for name in names if not hasattr(image / "etc", name)} <= LEFT_OUT
    assert not LEFT_OUT & {name for name in dir(image / "etc") if not name.startswith("_")}


@pytest.mark.parametrize(
    "name", ["glob", "rglob", "chmod", "exists", "match", "relative_to", "walk", "read_text", "mkdir"]
)
def test_a_method_takes_the_keywords_of_pathlibs(image: MountedImage, name: str) -> None:
    theirs = inspect.signature(getattr(Path, name, lambda: None)).parameters
    ours = inspect.signature(getattr(type(image / ""), name)).parameters
    assert {each for each in theirs if theirs[each].kind is inspect.Parameter.KEYWORD_ONLY} <= ours.keys()


def test_what_is_the_same_for_every_path_of_an_image(image: MountedImage) -> None:
    path = image / "etc/hostname"
    assert (path.drive, path.root, path.anchor, path.as_posix()) == ("", "/", "/", "/etc/hostname")
    assert path.is_absolute()
    assert path.absolute() is path
    assert not path.is_junction()
    assert path.label == "disk.qcow2 partition 2:/etc/hostname"
    assert (image.title, f"{image / ''!r}") == ("disk.qcow2 partition 2", "ImagePath('disk.qcow2 partition 2', '/')")


def test_relative_to_walks_up_when_told(image: MountedImage) -> None:
    path = image / "usr/lib/os-release"
    assert path.relative_to("/usr/bin", walk_up=True) == PurePosixPath("../lib/os-release")
    assert path.relative_to("/etc/x/y", walk_up=True) == PurePosixPath("../../../usr/lib/os-release")
    assert path.relative_to("/usr", walk_up=True) == PurePosixPath("lib/os-release")
    with pytest.raises(ValueError, match=r"\.\."):
        path.relative_to("/etc/../x", walk_up=True)


def test_whole_paths_match_patterns(image: MountedImage) -> None:
    path = image / "EFI/BOOT/BOOTX64.EFI"
    assert path.full_match("/EFI/**/*.EFI")
    assert path.full_match("efi/*/*.efi", case_sensitive=False)
    assert not path.full_match("*.EFI")
    assert path.match("*.efi", case_sensitive=False)
    assert not path.match("*.efi")


# Links


@pytest.fixture(
    params=["absolute", "relative", "magic root", "magic cwd", "magic descriptor", "through a folder link", "chain"]
)
def way_out(request: pytest.FixtureRequest, tree: Path) -> Iterator[str]:
    """Path in the tree of a link that, followed by a plain open on this machine, leads to the canary."""
    canary = tree.parent / "canary"
    link = tree / "etc/out"
    descriptor = os.open(tree.parent, os.O_PATH)
    name = "etc/out"
    match request.param:
        case "absolute":
            link.symlink_to(canary)
        case "relative":
            link.symlink_to("../../canary")
        case "magic root":
            link.symlink_to(f"/proc/self/root{canary}")
        case "magic cwd":
            link.symlink_to("/proc/self/cwd/" + os.path.relpath(canary))
        case "magic descriptor":
            link.symlink_to(f"/proc/self/fd/{descriptor}/canary")
        case "through a folder link":
            link.symlink_to(tree.parent)
            name = "etc/out/canary"
        case "chain":
            (tree / "one").symlink_to("etc/two")
            (tree / "etc/two").symlink_to(canary)
            link.symlink_to("../one")
    assert (tree / name).read_text() == CANARY, "the link must lead out when it is followed without care"
    yield name
    os.close(descriptor)


def test_no_operation_follows_a_link_out_of_the_image(image: MountedImage, tree: Path, way_out: str) -> None:
    path = image / way_out
    assert not path.exists()
    assert not path.is_file()
    operations: list[Callable[[], object]] = [
        path.stat,
        path.read_text,
        path.read_bytes,
        path.sha256,
        path.open,
        path.owner,
        path.group,
        path.xattrs,
        path.capabilities,
        path.selinux_context,
        path.facts,
        lambda: Manifest.of(path),
        path.iterdir,
        lambda: path.samefile(path),
        lambda: path.resolve(strict=True),
        lambda: path.chmod(0o600),
        lambda: next(path.walk()),
    ]
    for operation in operations:
        with pytest.raises(FileNotFoundError) as caught:
            operation()
        assert str(caught.value.filename).startswith("disk.qcow2 partition 2:/")
    assert list(path.glob("**/*")) == []
    assert os.fspath(path).startswith(f"{tree}/"), "the name for other programs stays below the mount point"
    assert not Path(path).exists()


def test_writing_through_a_link_that_leads_out_leaves_the_outside_alone(
    image: MountedImage, tree: Path, way_out: str
) -> None:
    with suppress(FileNotFoundError):
        (image / way_out).write_text("written inside")
    with suppress(FileNotFoundError):
        (image / way_out).touch()
    assert (tree.parent / "canary").read_text() == CANARY
    assert sorted(path.name for path in tree.parent.iterdir()) == ["canary", "mountpoint"]


def test_a_dangling_link_is_a_link_and_does_not_exist(image: MountedImage) -> None:
    path = image / "etc/dangling"
    assert path.is_symlink()
    assert not path.exists()
    assert path.exists(follow_symlinks=False)
    assert path.readlink() == PurePosixPath("/no/such")


def test_a_link_to_itself_is_an_error_and_not_an_endless_walk(image: MountedImage) -> None:
    path = image / "loop"
    assert not path.exists()
    for operation in (path.stat, path.read_text, path.resolve, path.__fspath__):
        with pytest.raises(OSError) as caught:
            operation()
        assert caught.value.errno == errno.ELOOP


def test_readlink_of_a_file_is_einval(image: MountedImage) -> None:
    with pytest.raises(OSError) as caught:
        (image / "etc/hostname").readlink()
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("etc/os-release", "/usr/lib/os-release"),
        ("lib/../.hidden.conf", "/usr/.hidden.conf"),
        ("etc/dangling", "/no/such"),
        ("etc/no/../such", "/etc/such"),
        ("../../..", "/"),
    ],
)
def test_fspath_is_the_place_on_this_machine_with_every_link_resolved(
    image: MountedImage, tree: Path, text: str, resolved: str
) -> None:
    path = image / text
    assert path.resolve() == image / resolved
    assert os.fspath(path) == str(tree / resolved.lstrip("/"))


def test_fspath_lets_other_code_read_and_create_files(image: MountedImage) -> None:
    assert Path(image / "etc/os-release").read_text() == "ID=test\n"
    Path(image / "lib/new").write_text("new")
    assert (image / "usr/lib/new").read_text() == "new"


# Reading


def test_reading_gives_the_content(image: MountedImage, tree: Path) -> None:
    (tree / "latin").write_bytes(b"gr\xfc\xdfe\r\n")
    path = image / "latin"
    assert path.read_bytes() == b"gr\xfc\xdfe\r\n"
    assert path.read_text("latin-1") == "grüße\n"
    assert path.read_text(errors="replace") == "gr\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}e\n"
    assert path.read_text("latin-1", newline="") == "grüße\r\n"
    assert path.sha256() == hashlib.sha256(b"gr\xfc\xdfe\r\n").hexdigest()
    with path.open("rb") as binary:
        assert binary.read(2) == b"gr"
        assert binary.name == "disk.qcow2 partition 2:/latin"
    with path.open(encoding="latin-1") as text:
        assert list(text) == ["grüße\n"]


def test_text_that_is_not_utf8_says_which_file(image: MountedImage, tree: Path) -> None:
    (tree / "latin").write_bytes(b"\xfc")
    with pytest.raises(UnicodeDecodeError) as caught:
        (image / "latin").read_text()
    assert caught.value.__notes__ == ["in disk.qcow2 partition 2:/latin"]


def test_names_that_are_not_utf8_are_reached(image: MountedImage, tree: Path) -> None:
    Path(os.fsdecode(os.fsencode(tree) + b"/etc/\xff")).write_text("odd")
    (path,) = (image / "etc").glob("[!a-z]*")
    assert path.read_text() == "odd"


def test_types_are_told_apart(image: MountedImage, tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        descriptor = os.open(tree, os.O_PATH)
        server.bind(f"/proc/self/fd/{descriptor}/socket")
        os.close(descriptor)
    questions = [
        "is_file",
        "is_dir",
        "is_symlink",
        "is_fifo",
        "is_socket",
        "is_block_device",
        "is_char_device",
        "is_mount",
    ]

    def answers(name: str) -> list[str]:
        return [question for question in questions if getattr(image / name, question)()]

    assert answers("etc/hostname") == ["is_file"]
    assert answers("etc/os-release") == ["is_file", "is_symlink"]
    assert answers("etc") == ["is_dir"]
    assert answers("lib") == ["is_dir", "is_symlink"]
    assert answers("loop") == ["is_symlink"]
    assert answers("fifo") == ["is_fifo"]
    assert answers("socket") == ["is_socket"]
    assert answers("/") == ["is_dir", "is_mount"]
    assert answers("no/such") == []
    assert answers("etc/hostname/below") == []
    assert (image / "lib").is_dir(follow_symlinks=False) is False


@pytest.mark.timeout(20)
@pytest.mark.parametrize("mode", ["r", "w", "r+", "rb", "a"])
def test_a_fifo_is_refused_at_once(image: MountedImage, tree: Path, mode: str) -> None:
    os.mkfifo(tree / "fifo")
    with pytest.raises(OSError, match="FIFO") as caught:
        (image / "fifo").open(mode)
    assert caught.value.errno == errno.ENXIO
    assert caught.value.filename == "disk.qcow2 partition 2:/fifo"


def test_a_file_that_was_opened_waits_for_its_data_as_usual(image: MountedImage) -> None:
    with (image / "etc/hostname").open() as file:
        assert os.get_blocking(file.fileno())


def test_stat_is_of_the_target_and_lstat_of_the_link(image: MountedImage, tree: Path) -> None:
    path = image / "etc/os-release"
    assert path.stat() == (tree / "usr/lib/os-release").stat()
    assert path.lstat() == path.stat(follow_symlinks=False) == (tree / "etc/os-release").lstat()
    assert path.samefile("usr/lib/os-release")
    assert path.samefile(image / "lib/os-release")
    assert not path.samefile("etc/hostname")


def test_owner_and_group_are_those_of_the_image(image: MountedImage, tree: Path) -> None:
    uid, gid = os.getuid(), os.getgid()
    (tree / "etc/passwd").write_text(f"other:x:{uid + 1}:0::/:\n# note\nmary:x:{uid}:7:Mary:/:\nlater:x:{uid}:7::/:\n")
    (tree / "etc/group").write_text(f"staff:x:{gid}:mary\n")
    (tree / "new").touch()
    os.chown(tree / "new", uid, gid)
    assert (image / "new").owner() == "mary"
    assert (image / "new").group() == "staff"
    (tree / "etc/passwd").write_text(f"other:x:{uid + 1}:0::/:\n")
    with pytest.raises(KeyError, match=rf"disk\.qcow2 partition 2:/new belongs to {uid}"):
        (image / "new").owner()


def test_owner_takes_lines_and_numbers_as_the_c_library_does(image: MountedImage, tree: Path) -> None:
    lines = [f"mary:x:{'9' * 5000}:0::/:", f"nell:x:1:0:\x0bmary:x:{os.getuid()}:0::/:", f"pete:x:{os.getuid()}:0::/:"]
    (tree / "etc/passwd").write_text("\n".join(lines))
    assert (image / "etc").owner() == "pete"


def test_owner_without_a_passwd_in_the_image_names_that_file(image: MountedImage) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (image / "etc/hostname").owner()
    assert caught.value.filename == "disk.qcow2 partition 2:/etc/passwd"


# Listing


def test_iterdir_is_sorted_and_fails_when_called(image: MountedImage) -> None:
    assert texts((image / "etc").iterdir()) == ["/etc/dangling", "/etc/hostname", "/etc/os-release"]
    assert texts((image / "lib").iterdir()) == ["/lib/deep", "/lib/os-release"]
    with pytest.raises(NotADirectoryError):
        (image / "etc/hostname").iterdir()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["/etc", "/lib", "/loop", "/usr"]),
        ("*/", ["/etc", "/lib", "/usr"]),
        ("etc/h*", ["/etc/hostname"]),
        ("./etc//hostname", ["/etc/hostname"]),
        ("etc/dangling", ["/etc/dangling"]),
        ("etc/dangling/", []),
        ("no/*", []),
        ("etc/hostname/*", []),
        ("loop/*", []),
        ("*/os-release", ["/etc/os-release", "/lib/os-release"]),
        ("**/*.conf", ["/usr/.hidden.conf", "/usr/lib/deep/a.conf"]),
        ("**/deep/**/*", ["/usr/lib/deep/a.conf"]),
        ("**/**/deep", ["/usr/lib/deep"]),
        ("lib/*", ["/lib/deep", "/lib/os-release"]),
        ("usr/lib/**", ["/usr/lib", "/usr/lib/deep", "/usr/lib/deep/a.conf", "/usr/lib/os-release"]),
        ("usr/**/", ["/usr", "/usr/lib", "/usr/lib/deep"]),
        ("lib/../.h*", ["/lib/../.hidden.conf"]),
        ("[e-l]*", ["/etc", "/lib", "/loop"]),
        ("ET?", []),
    ],
)
def test_glob_finds(image: MountedImage, pattern: str, expected: list[str]) -> None:
    assert sorted(texts((image / "").glob(pattern))) == expected


def test_glob_for_folders_at_any_depth_takes_no_links_as_in_python_3_13(image: MountedImage, tree: Path) -> None:
    (tree / "new/below").mkdir(parents=True)
    (tree / "new/link").symlink_to("below")
    assert texts((image / "new").glob("**/")) == ["/new", "/new/below"]
    assert texts((image / "new").glob("*/")) == ["/new/below", "/new/link"]
    assert texts((image / "new").glob("**/", recurse_symlinks=True)) == ["/new", "/new/below", "/new/link"]


def test_glob_gives_each_path_once(image: MountedImage, tree: Path) -> None:
    (tree / "a/a/a").mkdir(parents=True)
    found = texts((image / "").glob("**/a/**/a"))
    assert sorted(found) == ["/a/a", "/a/a/a"]


def test_rglob_is_glob_at_any_depth(image: MountedImage) -> None:
    assert texts((image / "usr").rglob("*.conf")) == ["/usr/.hidden.conf", "/usr/lib/deep/a.conf"]
    assert texts((image / "usr").rglob("")) == ["/usr", "/usr/lib", "/usr/lib/deep"]


def test_glob_without_case_finds_names_as_a_vfat_boot_partition_writes_them(image: MountedImage, tree: Path) -> None:
    (tree / "EFI/BOOT").mkdir(parents=True)
    (tree / "EFI/BOOT/BOOTX64.EFI").touch()
    assert texts((image / "").glob("efi/boot/*.efi", case_sensitive=False)) == ["/EFI/BOOT/BOOTX64.EFI"]
    assert texts((image / "").rglob("bootx64.efi", case_sensitive=False)) == ["/EFI/BOOT/BOOTX64.EFI"]


def test_glob_goes_through_links_when_told(image: MountedImage) -> None:
    assert texts((image / "lib").rglob("*.conf")) == ["/lib/deep/a.conf"]
    found = sorted(texts((image / "").glob("**/*.conf", recurse_symlinks=True)))
    assert found == ["/lib/deep/a.conf", "/usr/.hidden.conf", "/usr/lib/deep/a.conf"]
    assert texts((image / "").rglob("os-release")) == ["/etc/os-release", "/usr/lib/os-release"]


def test_glob_refuses_patterns_that_mean_nothing(image: MountedImage) -> None:
    with pytest.raises(ValueError, match="empty"):
        (image / "").glob("")
    with pytest.raises(NotImplementedError, match="relative"):
        (image / "").glob("/etc/*")


def test_walk_goes_through_the_tree_in_order_and_not_through_links(image: MountedImage) -> None:
    found = [(str(folder), folders, files) for folder, folders, files in (image / "").walk()]
    assert found == [
        ("/", ["etc", "usr"], ["lib", "loop"]),
        ("/etc", [], ["dangling", "hostname", "os-release"]),
        ("/usr", ["lib"], [".hidden.conf"]),
        ("/usr/lib", ["deep"], ["os-release"]),
        ("/usr/lib/deep", [], ["a.conf"]),
    ]
    upward = [(str(folder), folders, files) for folder, folders, files in (image / "").walk(top_down=False)]
    assert sorted(upward) == sorted(found)
    assert [folder for folder, _, _ in upward] == ["/etc", "/usr/lib/deep", "/usr/lib", "/usr", "/"]


def test_walk_skips_what_is_taken_from_the_list_and_follows_links_when_told(image: MountedImage) -> None:
    seen = []
    for folder, folders, _ in (image / "").walk(follow_symlinks=True):
        seen.append(str(folder))
        if folder == image / "":
            assert folders == ["etc", "lib", "usr"]
            folders.remove("usr")
    assert seen == ["/", "/etc", "/lib", "/lib/deep"]


class Unreadable:
    """An opener for which one folder gives an I/O error, as on a damaged file system."""

    sees_all_xattrs = True

    def __init__(self, tree: Path, path: str) -> None:
        self._opener, self._path = LocalOpener(tree), path

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        if path == self._path and not flags & os.O_PATH:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return self._opener.open(path, flags, mode)

    def change(self, change: Change) -> None:
        self._opener.change(change)

    def xattrs(self, paths: Sequence[str], *, follow: bool) -> Iterator[dict[str, bytes]]:
        return self._opener.xattrs(paths, follow=follow)

    def close(self) -> None:
        self._opener.close()


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(tree: Path) -> None:
    image = MountedImage(mount_facts(tree), nothing, opener=Unreadable(tree, "/usr/lib"))
    root = image / ""
    for listing in (root.walk(), root.rglob("*"), root.glob("usr/lib/*"), root.glob("usr/*/*")):
        with pytest.raises(OSError) as caught:
            list(listing)
        assert (caught.value.errno, caught.value.filename) == (errno.EIO, "disk.qcow2 partition 2:/usr/lib")
    errors: list[OSError] = []
    assert [str(folder) for folder, _, _ in root.walk(on_error=errors.append)] == ["/", "/etc", "/usr"]
    assert [error.filename for error in errors] == ["disk.qcow2 partition 2:/usr/lib"]
    image.unmount()


def test_exists_raises_what_does_not_mean_that_there_is_no_file(image: MountedImage) -> None:
    with pytest.raises(OSError) as caught:
        (image / ("n" * 300)).exists()
    assert caught.value.errno == errno.ENAMETOOLONG


def test_a_name_with_a_null_byte_is_refused_and_not_cut(image: MountedImage) -> None:
    with pytest.raises(ValueError, match="null byte"):
        (image / "etc/hostname\0.txt").read_text()


# Writing


def test_files_and_folders_are_made_changed_and_removed(image: MountedImage, tree: Path) -> None:
    assert (image / "etc/os-release").write_text("ID=größer\n") == 10
    assert (tree / "usr/lib/os-release").read_text("utf-8") == "ID=größer\n"
    assert (image / "etc/dangling").parent.joinpath("raw").write_bytes(b"\0\1") == 2
    with (image / "etc/raw").open("ab") as file:
        file.write(b"\2")
    assert (tree / "etc/raw").read_bytes() == b"\0\1\2"
    with pytest.raises(FileExistsError):
        (image / "etc/raw").open("x")

    (image / "var/log/app").mkdir(parents=True, mode=0o700)
    assert (tree / "var/log/app").stat().st_mode & 0o777 == 0o700
    (image / "var/log/app").mkdir(exist_ok=True)
    (image / "").mkdir(exist_ok=True)
    for path in (image / "etc/hostname", image / "loop"):
        with pytest.raises(FileExistsError):
            path.mkdir(exist_ok=True)
    with pytest.raises(FileNotFoundError) as caught:
        (image / "srv/www").mkdir()
    assert caught.value.filename == "disk.qcow2 partition 2:/srv/www"
    (image / "var/log/app").rmdir()
    with pytest.raises(OSError) as not_empty:
        (image / "var").rmdir()
    assert not_empty.value.errno == errno.ENOTEMPTY

    (image / "etc/dangling").unlink()
    (image / "etc/dangling").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (image / "etc/dangling").unlink()


def test_touch_makes_a_file_or_sets_its_times(image: MountedImage, tree: Path) -> None:
    os.utime(tree / "usr/lib/os-release", (1, 1))
    os.utime(tree / "usr/lib", (1, 1))
    (image / "etc/os-release").touch()
    (image / "lib").touch()
    assert (tree / "usr/lib/os-release").stat().st_mtime > 1
    assert (tree / "usr/lib").stat().st_mtime > 1
    (image / "etc/new").touch(mode=0o600)
    assert (tree / "etc/new").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        (image / "etc/new").touch(exist_ok=False)


def test_chmod_changes_what_a_link_points_at(image: MountedImage, tree: Path) -> None:
    (image / "etc/os-release").chmod(0o4750)
    assert (tree / "usr/lib/os-release").stat().st_mode & 0o7777 == 0o4750
    os.mkfifo(tree / "fifo")
    (image / "fifo").chmod(0o640)
    assert (tree / "fifo").stat().st_mode & 0o777 == 0o640


def test_symlink_to_keeps_the_text(image: MountedImage, tree: Path) -> None:
    (image / "etc/one").symlink_to("../usr/lib/.")
    (image / "etc/two").symlink_to(image / "usr/lib")
    assert os.fsencode("../usr/lib/.") == os.readlink(os.fsencode(tree / "etc/one"))  # noqa: PTH115  (pathlib drops the dot)
    assert str((tree / "etc/two").readlink()) == "/usr/lib"
    with pytest.raises(FileExistsError):
        (image / "etc/one").symlink_to("x")


def test_hardlink_to_gives_a_file_one_more_name(image: MountedImage, tree: Path) -> None:
    (image / "lib/name").hardlink_to("etc/hostname")
    assert (tree / "usr/lib/name").samefile(tree / "etc/hostname")
    (image / "etc/second").hardlink_to(image / "etc/os-release")
    assert str((tree / "etc/second").readlink()) == "/usr/lib/os-release", "of a link the link itself"
    with pytest.raises(FileExistsError):
        (image / "etc/second").hardlink_to("etc/hostname")
    with pytest.raises(FileNotFoundError) as caught:
        (image / "etc/new").hardlink_to("no")
    assert caught.value.filename == "disk.qcow2 partition 2:/no"
    assert caught.value.filename2 == "disk.qcow2 partition 2:/etc/new"
    for folder in ("etc", "/", ".."):
        with pytest.raises(PermissionError):
            (image / "new").hardlink_to(folder)


def test_a_link_itself_has_no_mode_to_change(image: MountedImage, tree: Path) -> None:
    with pytest.raises(NotImplementedError, match="no mode"):
        (image / "etc/os-release").chmod(0o600, follow_symlinks=False)
    (image / "etc/hostname").chmod(0o600, follow_symlinks=False)
    assert (tree / "etc/hostname").stat().st_mode & 0o777 == 0o600


def test_a_path_of_megabytes_is_reached_and_leaves_no_descriptor(tree: Path) -> None:
    (tree / "new").write_text("found")
    root = os.open(tree, os.O_PATH)
    before = len(list(Path("/proc/self/fd").iterdir()))
    with os.fdopen(open_below(root, "./" * 2_200_000 + "new", os.O_RDONLY)) as file:
        assert file.read() == "found"
    with pytest.raises(NotADirectoryError):
        open_below(root, "./" * 10_000 + "new/" + "./" * 10_000, os.O_RDONLY)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    os.close(root)


def test_a_path_longer_than_a_system_call_takes_is_reached(image: MountedImage, tree: Path) -> None:
    name = "n" * 200
    deep = image / "/".join([name] * 30)
    place = image / ""
    for _ in range(30):
        place = place / name
        place.mkdir()
    (deep / "file").write_text("deep")
    (deep / "link").symlink_to("file")
    assert (deep / "file").read_text() == "deep"
    assert str((deep / "link").readlink()) == "file"
    assert [path.name for path in deep.iterdir()] == ["file", "link"]
    assert texts((image / "").rglob("file")) == [str(deep / "file")]
    with pytest.raises(OSError) as caught:
        (deep / "link").read_text()
    assert caught.value.errno == errno.ELOOP
    assert held(tree) == []


def test_rename_moves_inside_the_image(image: MountedImage, tree: Path) -> None:
    moved = (image / "etc/hostname").rename("lib/hostname")
    assert moved == image / "lib/hostname"
    assert (tree / "usr/lib/hostname").read_text() == "web01\n"
    assert (image / "usr/lib/hostname").replace(image / "etc/os-release") == image / "etc/os-release"
    assert not (tree / "etc/os-release").is_symlink()
    with pytest.raises(FileNotFoundError) as caught:
        (image / "no").rename("etc/no")
    assert (caught.value.filename, caught.value.filename2) == (
        "disk.qcow2 partition 2:/no",
        "disk.qcow2 partition 2:/etc/no",
    )


def test_names_that_are_not_in_a_folder_are_never_given_to_the_host(image: MountedImage, tree: Path) -> None:
    before = sorted(tree.parent.rglob("*"))
    for text, number in {"/": errno.EBUSY, "..": errno.ENOTEMPTY, "etc/..": errno.ENOTEMPTY}.items():
        path = image / text
        expected: list[tuple[Callable[[], object], int]] = [
            (path.rmdir, number),
            (path.unlink, errno.EISDIR),
            (path.mkdir, errno.EEXIST),
            (lambda path=path: path.symlink_to("x"), errno.EEXIST),  # type: ignore[misc]
            (lambda path=path: path.hardlink_to("etc/hostname"), errno.EEXIST),  # type: ignore[misc]
            (lambda path=path: path.rename("x"), errno.EBUSY),  # type: ignore[misc]
            (lambda path=path: (image / "etc").rename(path), errno.EBUSY),  # type: ignore[misc]
        ]
        for operation, error in expected:
            with pytest.raises(OSError) as caught:
                operation()
            assert caught.value.errno == error
    assert sorted(tree.parent.rglob("*")) == before


# Descriptors and the unmount


def every_operation(image: MountedImage) -> dict[str, Callable[[], Any]]:
    """Each operation that looks at the file system."""
    path = image / "etc/hostname"
    return {
        "stat": path.stat,
        "lstat": path.lstat,
        "exists": path.exists,
        "is_file": path.is_file,
        "is_dir": path.is_dir,
        "is_symlink": path.is_symlink,
        "is_mount": path.is_mount,
        "owner": path.owner,
        "group": path.group,
        "open": path.open,
        "read_text": path.read_text,
        "read_bytes": path.read_bytes,
        "sha256": path.sha256,
        "xattrs": path.xattrs,
        "capabilities": path.capabilities,
        "selinux_context": path.selinux_context,
        "facts": path.facts,
        "manifest": image.manifest,
        "readlink": path.readlink,
        "resolve": path.resolve,
        "samefile": lambda: path.samefile(path),
        "iterdir": (image / "etc").iterdir,
        "glob": lambda: list((image / "etc").glob("*")),
        "rglob": lambda: list((image / "").rglob("*")),
        "walk": lambda: list((image / "").walk()),
        "fspath": lambda: os.fspath(path),
        "fspath of the root": lambda: os.fspath(image / ""),
        "write_text": lambda: path.write_text("x"),
        "write_bytes": lambda: path.write_bytes(b"x"),
        "touch": path.touch,
        "chmod": lambda: path.chmod(0o644),
        "mkdir": lambda: (image / "new").mkdir(parents=True),
        "rmdir": (image / "new").rmdir,
        "symlink_to": lambda: (image / "link").symlink_to("x"),
        "hardlink_to": lambda: (image / "hard").hardlink_to("etc/hostname"),
        "rename": lambda: (image / "link").rename("link2"),
        "unlink": lambda: (image / "link2").unlink(missing_ok=True),
    }


def test_no_operation_leaves_a_descriptor_open(image: MountedImage, tree: Path) -> None:
    for name, operation in every_operation(image).items():
        with suppress(OSError):
            result = operation()
            if name == "open":
                result.close()
        assert held(tree) == [], f"{name} left a descriptor"
    os.mkfifo(tree / "fifo")
    for text in ("fifo", "etc", "no/such", "loop"):
        with pytest.raises(OSError):
            (image / text).read_text()
        assert held(tree) == []


def test_a_generator_that_waits_holds_no_descriptor(image: MountedImage, tree: Path) -> None:
    root = image / ""
    generators: list[Iterator[object]] = [
        root.iterdir(),
        root.glob("*"),
        root.glob("*/*"),
        root.rglob("*"),
        root.glob("**/lib/**/*"),
        root.walk(),
        root.walk(top_down=False),
        root.walk(follow_symlinks=True),
    ]
    for generator in generators:
        next(generator)
        assert held(tree) == []


def test_after_the_unmount_every_operation_says_so(image: MountedImage, tree: Path) -> None:
    operations = every_operation(image)
    image.unmount()
    for operation in operations.values():
        with pytest.raises(ImageUnmounted, match=r"'disk\.qcow2' is not mounted any more") as caught:
            operation()
        assert isinstance(caught.value, ValueError)
    assert held(tree) == []


def test_a_walk_that_was_begun_before_the_unmount_says_so(image: MountedImage) -> None:
    walk = (image / "").walk()
    next(walk)
    image.unmount()
    with pytest.raises(ImageUnmounted) as caught:
        next(walk)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.image, again.path, str(again)) == ("disk.qcow2", "/etc", str(caught.value))


def test_the_mount_is_undone_once(tree: Path) -> None:
    calls: list[str] = []
    image = MountedImage(mount_facts(tree), lambda: calls.append("undone"))
    assert state(image) == "mounted"
    image.unmount()
    image.unmount()
    assert calls == ["undone"]
    assert state(image) == "unmounted"


def test_the_folder_below_a_mount_that_was_taken_away_is_not_the_image(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    image = MountedImage(mount_facts(root), lambda: None)
    root.rename(tmp_path / "other")
    root.mkdir()
    with pytest.raises(OSError, match="not mounted there any more"):
        (image / "file").exists()


def test_an_unmount_that_failed_can_be_tried_again(tree: Path) -> None:
    answers: list[Exception | None] = [OSError(errno.EBUSY, "busy"), None]

    def release() -> None:
        if answer := answers.pop(0):
            raise answer

    image = MountedImage(mount_facts(tree), release)
    with pytest.raises(OSError, match="busy"):
        image.unmount()
    assert state(image) == "mounted"
    image.unmount()
    assert state(image) == "unmounted"
    assert answers == []


def test_an_unmount_from_inside_the_unmount_does_not_hang(tree: Path) -> None:
    calls: list[int] = []

    def release() -> None:
        calls.append(len(calls))
        if len(calls) == 1:
            mounted.unmount()

    mounted = MountedImage(mount_facts(tree), release)
    mounted.unmount()
    assert calls == [0, 1]
    assert state(mounted) == "unmounted"


# Where openat2 is missing or disturbed


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_without_openat2_there_is_a_clear_refusal(monkeypatch: pytest.MonkeyPatch, tree: Path, number: int) -> None:
    def openat2(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(syscalls, "openat2", openat2)
    released: list[None] = []
    with pytest.raises(CapabilityMissing, match=r"Linux 5\.6") as caught:
        MountedImage(mount_facts(tree), lambda: released.append(None))
    assert caught.value.capability == "openat2"
    assert isinstance(caught.value, ImageMountError)
    assert held(tree) == []
    assert released == []


def test_an_open_disturbed_by_a_signal_or_by_a_mount_elsewhere_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, image: MountedImage
) -> None:
    original, refusals = syscalls.openat2, [errno.EAGAIN, errno.EINTR, errno.EAGAIN]

    def openat2(dir_fd: int, path: str | bytes, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
        if refusals:
            number = refusals.pop()
            raise OSError(number, os.strerror(number))
        return original(dir_fd, path, flags, mode=mode, resolve=resolve)

    monkeypatch.setattr(syscalls, "openat2", openat2)
    assert (image / "usr/../etc/hostname").read_text() == "web01\n"
    assert refusals == []


def test_an_open_that_stays_disturbed_fails_at_a_deadline(monkeypatch: pytest.MonkeyPatch, image: MountedImage) -> None:
    def openat2(*_: object, **__: object) -> int:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(syscalls, "openat2", openat2)
    monkeypatch.setattr("pytest_imagemount.confined._RACE_SECONDS", 0.01)
    with pytest.raises(BlockingIOError) as caught:
        (image / "etc/hostname").stat()
    assert caught.value.filename == "disk.qcow2 partition 2:/etc/hostname"


# The values


def test_a_mounted_image_shows_its_facts(tree: Path) -> None:
    image = MountedImage(mount_facts(tree, "ro"), nothing)
    assert image.root == tree
    assert os.fspath(image) == str(image) == str(tree)
    assert image.source == Path("/images/disk.qcow2")
    assert (image.format, image.partition, image.device, image.fstype) == ("qcow2", 2, "/dev/loop3", "ext4")
    assert (image.label, image.uuid) == ("root", "0b4c5c4e-8f0a-4f3c-9d57-0d3f0f1c2a11")
    assert (image.mode, image.backend) == ("ro", "fuse")
    assert repr(image) == f"<MountedImage 'disk.qcow2' partition 2 (ext4, ro, /dev/loop3) mounted at {tree}>"
    with pytest.raises(AttributeError):
        image.mode = "rw"  # type: ignore[misc]
    image.unmount()
    assert repr(image) == "<MountedImage 'disk.qcow2' partition 2 (ext4, ro, /dev/loop3) unmounted>"
    assert image.fstype == "ext4", "the facts outlive the mount"


def test_a_block_device_shows_its_facts_and_detaches_once() -> None:
    facts = device_facts()
    calls: list[None] = []
    device = BlockDevice(facts, lambda: calls.append(None))
    assert device.path == Path("/dev/loop3")
    assert os.fspath(device) == str(device) == "/dev/loop3"
    assert (device.source, device.format, device.partition) == (Path("/images/disk.raw"), "raw", None)
    assert (device.size, device.mode, device.backend) == (1 << 20, "ro", "loop")
    assert device.partitions == {1: Path("/dev/loop4"), 5: Path("/dev/loop5")}
    assert repr(device) == "<BlockDevice 'disk.raw' (1048576 bytes, ro) attached at /dev/loop3>"
    assert state(device) == "attached"
    device.detach()
    device.detach()
    assert calls == [None]
    assert state(device) == "detached"
    assert repr(device) == "<BlockDevice 'disk.raw' (1048576 bytes, ro) detached>"


def device_facts() -> DeviceFacts:
    return DeviceFacts(
        path=Path("/dev/loop3"),
        source=Path("/images/disk.raw"),
        format="raw",
        partition=None,
        size=1 << 20,
        mode="ro",
        backend="loop",
        partitions=((1, Path("/dev/loop4")), (5, Path("/dev/loop5"))),
    )


def test_facts_travel_as_json() -> None:
    mounted, attached = mount_facts(Path("/run/x")), device_facts()
    assert MountFacts.from_wire(json.loads(json.dumps(mounted.to_wire()))) == mounted
    assert DeviceFacts.from_wire(json.loads(json.dumps(attached.to_wire()))) == attached
    assert hash(attached) == hash(device_facts())
    with pytest.raises(AttributeError):
        mounted.mode = "rw"  # type: ignore[misc]


def test_facts_with_a_name_that_is_not_utf8_travel_as_json() -> None:
    facts = mount_facts(Path(os.fsdecode(b"/run/\xff")))
    assert MountFacts.from_wire(json.loads(json.dumps(facts.to_wire()))) == facts
