"""Manifests: their order and their text, and reading a tree of any size, depth and malice."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_imagemount import FileFacts, Manifest, facts_reader, mtree_lines
from pytest_imagemount.errors import ImageUnmounted, ManifestInvalid
from pytest_imagemount.manifest import order, read_facts, walk_facts
from pytest_imagemount.path_pattern import path_matcher

from .trees import mounted, small_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_imagemount.mounted_image import MountedImage

PATHS = ["/", "/etc", "/etc/group", "/etc/hostname", "/etc/mtab", "/etc/passwd", "/etc.d", "/etc.d/empty"]
PATHS += ["/run", "/run/fifo"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return small_tree(tmp_path / "tree")


@pytest.fixture
def image(tree: Path) -> MountedImage:
    return mounted(tree)


def paths(facts: Iterator[FileFacts]) -> list[str]:
    return [each.path for each in facts]


def held(tree: Path) -> list[str]:
    """The descriptors of this process that are of files in the tree."""
    names = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]  # noqa: PTH208
    found = [os.readlink(name) for name in names if os.path.lexists(name)]  # noqa: PTH115
    return [name for name in found if name.startswith(str(tree))]


# What it holds


def test_every_file_is_there_once_and_a_folder_goes_before_what_is_in_it(image: MountedImage) -> None:
    manifest = image.manifest()
    assert paths(iter(manifest)) == PATHS
    assert len(manifest) == len(PATHS)
    assert repr(manifest) == "<Manifest of disk.raw partition 2, 10 files>"
    assert [order(each) for each in manifest] == sorted(order(each) for each in manifest)


def test_its_facts_are_those_that_each_path_gives(image: MountedImage) -> None:
    for facts in image.manifest(times=True):
        one = (image / facts.path).facts(follow_symlinks=False, times=True)
        assert facts == one
        assert (facts.label, facts.owner, facts.group) == (one.label, one.owner, one.group)


def test_paths_start_at_the_folder_that_it_is_of(image: MountedImage) -> None:
    (image / "link").symlink_to("/etc")
    for folder in (image / "etc", image / "link"):
        manifest = Manifest.of(folder)
        assert paths(iter(manifest)) == ["/", "/group", "/hostname", "/mtab", "/passwd"]
        assert next(iter(manifest)).type == "dir"
        assert [each.label for each in manifest][2] == f"disk.raw partition 2:{folder}/hostname"
    assert paths(iter(Manifest.of(image / "etc/hostname"))) == ["/"]


def test_ignored_paths_are_left_out_with_all_below(image: MountedImage) -> None:
    left = [path for path in PATHS if not path.startswith("/etc/") or path == "/etc/mtab"]
    assert paths(iter(image.manifest(ignore=["/etc/*a*w*", "etc/[gh]*"]))) == left
    assert paths(iter(image.manifest(ignore=["/etc/**", "**/fifo"]))) == ["/", "/etc", "/etc.d", "/etc.d/empty", "/run"]
    assert paths(iter(image.manifest(ignore=["/etc"]))) == ["/", "/etc.d", "/etc.d/empty", "/run", "/run/fifo"]


def test_it_outlives_the_mount_and_a_walk_says_that_the_image_is_gone(image: MountedImage) -> None:
    manifest, walk = image.manifest(), walk_facts(image).facts
    next(walk)
    image.unmount()
    assert paths(iter(manifest)) == PATHS
    with pytest.raises(ImageUnmounted):
        list(walk)
    with pytest.raises(ImageUnmounted):
        image.manifest()


def test_equal_trees_have_equal_manifests_whoever_made_them(image: MountedImage, tmp_path: Path) -> None:
    other = mounted(small_tree(tmp_path / "other"), "other.raw", None)
    assert image.manifest() == other.manifest()
    (tmp_path / "other/etc/passwd").unlink()
    (image / "etc/passwd").unlink()
    assert image.manifest() == other.manifest()
    (other / "etc/hostname").write_text("web02\n")
    assert image.manifest() != other.manifest()
    assert image.manifest(content=False) == other.manifest(content=False)
    (other / "etc/hostname").unlink()
    assert image.manifest(content=False) != other.manifest(content=False)
    assert image.manifest() != "a manifest"


def test_names_of_users_are_not_compared(image: MountedImage) -> None:
    before = image.manifest(ignore=["/etc/passwd"])
    (image / "etc/passwd").write_text("")
    after = image.manifest(ignore=["/etc/passwd"])
    assert [each.owner for each in before] != [each.owner for each in after]
    assert before == after


# Its text


def test_it_is_written_and_read_back(image: MountedImage, tmp_path: Path) -> None:
    (image / "etc/a b\n#\x1b\\=*ü").write_text("")
    manifest = image.manifest(times=True)
    manifest.write(tmp_path / "saved")
    again = Manifest.read(tmp_path / "saved")
    assert again == manifest
    assert again.start == manifest.start == "disk.raw partition 2:"
    assert [repr(each) for each in again] == [repr(each) for each in manifest]
    text = (tmp_path / "saved").read_text("ascii").splitlines()
    assert text[:2] == ["#mtree", r"# pytest-imagemount manifest of disk.raw\040partition\0402:"]
    uid, gid = os.getuid(), os.getgid()
    digest = hashlib.sha256(b"web01\n").hexdigest()
    (line,) = (line for line in text if "hostname" in line)
    owners = f"uid={uid} gid={gid} uname=mary gname=staff"
    assert line.startswith(f"./etc/hostname type=file mode=0640 {owners} size=6 sha256digest={digest} time=")
    assert any(line.startswith(r"./etc/a\040b\012\043\033\134\075\052\303\274 ") for line in text)


names = st.binary(min_size=1, max_size=12).filter(
    lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")
)
texts = st.binary(min_size=1, max_size=20).filter(lambda text: 0 not in text).map(os.fsdecode)
any_facts = st.builds(
    FileFacts,
    start=st.just("x:"),
    path=st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + os.fsdecode(b"/".join(parts))),
    type=st.just("file"),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    owner=st.none() | texts,
    group=st.none() | texts,
    size=st.integers(0, 2**62),
    sha256=st.none() | st.just("a" * 64),
    target=st.none() | texts,
    device=st.none() | st.tuples(st.integers(0, 4095), st.integers(0, 2**20)),
    xattrs=st.dictionaries(texts, st.binary(max_size=30), max_size=3),
    mtime_ns=st.none() | st.integers(-(2**62), 2**62),
)


@given(any_facts)
def test_every_line_is_read_as_it_was_written(facts: FileFacts) -> None:
    line = mtree_lines.encode(facts)
    assert line.isascii()
    assert line.isprintable()
    again = mtree_lines.decode(line, "x:")
    assert again == facts
    assert (again.path, again.owner, again.group) == (facts.path, facts.owner, facts.group)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/etc type=dir mode=0755 uid=0 gid=0", "starts with '/etc'"),
        ("./etc mode=0755 uid=0 gid=0", "no type="),
        ("./etc type=folder mode=0755 uid=0 gid=0", "'folder' is none of"),
        ("./etc type=dir mode=0958 uid=0 gid=0", "invalid literal"),
        ("./etc type=dir mode=0755 uid=0 gid=0 flags=none", "'flags' is no key"),
        ("./etc type=dir mode=0755 uid=0 uid=0 gid=0", "second one"),
        ("./etc type=dir mode", "'mode' is no word"),
        ("./etc type=dir mode=0755 uid=0 gid=0 xattr.user.a=%", "base64|padding"),
        ("./etc type=char mode=0755 uid=0 gid=0 device=linux,1,2", "native"),
        ("./etc type=dir mode=0755 uid=0 gid=0 time=1.5", "nine digits"),
        ("./etc type=file mode=0755 uid=0 gid=0", "no size="),
        ("./etc type=dir mode=0755 uid=0 gid=0 uname=\xfc", "ascii"),
        (". type=dir mode=0755 uid=0 gid=0", "not in order"),
        ("", "starts with ''"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_with_the_line(tmp_path: Path, line: str, reason: str) -> None:
    first = ". type=dir mode=0755 uid=0 gid=0"
    text = f"#mtree\n# pytest-imagemount manifest of x:\n{first}\n{line}\n"
    (tmp_path / "saved").write_text(text, "utf-8")
    with pytest.raises(ManifestInvalid, match=reason) as caught:
        Manifest.read(tmp_path / "saved")
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "saved"), 4)


def test_a_file_of_another_kind_is_refused_at_its_head(tmp_path: Path) -> None:
    for number, content in enumerate([b"", b"QFI\xfb" + bytes(5000), b"#mtree\n. type=dir\n", b"#mtree\n\xff\n"]):
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ManifestInvalid) as caught:
            read_facts(tmp_path / "file")
        assert caught.value.line == (1 if number < 2 else 2)


# Trees of any size, depth and malice


def test_memory_is_bounded_while_files_stream(tmp_path: Path) -> None:
    # What waits is the folders beside those that are read: the larger tree has more folders, and none wider.
    small, large = tmp_path / "small", tmp_path / "large"
    for tree, groups in ((small, 1), (large, 8)):
        tree.mkdir()
        (tree / "file").write_text("x")
        for number in range(groups * 10):
            folder = tree / f"group{number // 10}/folder{number % 10}"
            folder.mkdir(parents=True)
            for name in range(100):
                (folder / f"file{name}").hardlink_to(tree / "file")
    peaks = []
    for tree in (small, large):
        facts = walk_facts(mounted(tree)).facts
        next(facts)
        tracemalloc.start()
        count = sum(1 for _ in facts)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert count == 8089
    assert peaks[1] < 1.5 * peaks[0] < 2_000_000


def test_a_folder_with_more_files_than_a_batch_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts_reader, "_BATCH", 3)
    tree = small_tree(tmp_path / "tree")
    for number in range(10):
        (tree / f"run/file{number}").touch()
    assert len(mounted(tree).manifest()) == len(PATHS) + 10


def test_no_descriptor_is_open_while_a_walk_waits(image: MountedImage, tree: Path) -> None:
    for _ in walk_facts(image).facts:
        assert held(tree) == []


def test_a_tree_of_a_thousand_levels_is_read_although_no_path_is_that_long(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    descriptor = os.open(tree, os.O_PATH)
    try:
        for _ in range(1000):
            os.mkdir("folder", dir_fd=descriptor)
            below = os.open("folder", os.O_PATH, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        os.symlink("/etc/passwd", "link", dir_fd=descriptor)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        image = mounted(tree)
        manifest = image.manifest()
        assert len(manifest) == 1003
        deepest = list(manifest)[-1]
        assert (deepest.path, deepest.target) == ("/folder" * 1000 + "/link", "/etc/passwd")
        assert (image / deepest.path).is_symlink()
        assert (image / deepest.path).parent.joinpath("file").read_text() == ""
        assert sum(1 for _ in (image / "").walk()) == 1001
        with pytest.raises(OSError) as caught:  # it would start at the root again, which the second step does not know
            (image / deepest.path).read_text()
        assert caught.value.errno == errno.ELOOP
    finally:
        os.close(descriptor)
        subprocess.run(["rm", "-rf", tree], check=True)  # shutil.rmtree of Python 3.11 does not go that deep


def test_a_folder_that_became_a_link_is_an_error_and_not_followed(image: MountedImage, tree: Path) -> None:
    outside = tree.parent / "outside"
    outside.mkdir()
    (outside / "canary").touch()
    walk = walk_facts(image).facts
    for facts in walk:
        if facts.path == "/etc":
            (tree / "etc").rename(tree / "old")
            (tree / "etc").symlink_to(outside)
            break
    with pytest.raises(OSError) as caught:
        next(walk)
    assert caught.value.errno in (errno.ENOTDIR, errno.ELOOP)
    assert caught.value.filename == "disk.raw partition 2:/etc"


def test_a_folder_that_was_exchanged_is_an_error(image: MountedImage, tree: Path) -> None:
    walk = walk_facts(image).facts
    for facts in walk:
        if facts.path == "/etc":
            (tree / "etc").rename(tree / "old")
            (tree / "etc").mkdir()
            break
    with pytest.raises(OSError, match="changed while it was read") as caught:
        next(walk)
    assert (caught.value.errno, caught.value.filename) == (errno.ESTALE, "disk.raw partition 2:/etc")


@pytest.mark.timeout(20)
def test_a_file_that_became_a_fifo_is_an_error_and_not_waited_for(
    image: MountedImage, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = facts_reader._is_file

    def is_file(entry: os.DirEntry[str]) -> bool:
        found = original(entry)
        if entry.name == "hostname":
            (tree / "etc/hostname").unlink()
            os.mkfifo(tree / "etc/hostname")
        return found

    monkeypatch.setattr(facts_reader, "_is_file", is_file)
    with pytest.raises(OSError) as caught:
        image.manifest()
    assert (caught.value.errno, caught.value.filename) == (errno.ESTALE, "disk.raw partition 2:/etc/hostname")
    assert held(tree) == []


def test_names_that_are_not_utf8_are_kept(image: MountedImage, tree: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\x1b\xe2\x80\xae")
    (tree / "etc.d" / name).write_text("odd")
    manifest = image.manifest()
    manifest.write(tmp_path / "saved")
    (facts,) = (each for each in Manifest.read(tmp_path / "saved") if each.size == 3)
    assert facts.path == f"/etc.d/{name}"
    assert repr(facts).isprintable()


# Patterns


@pytest.mark.parametrize(
    ("pattern", "matches", "others"),
    [
        ("/etc/*", ["/etc/a", "/etc/.a"], ["/etc", "/etc/a/b", "/usr/etc/a"]),
        ("etc/a", ["/etc/a"], ["/etc/ab", "/etc"]),
        ("/etc/**", ["/etc/a", "/etc/a/b"], ["/etc", "/etcetera"]),
        ("**/a", ["/a", "/b/a", "/b/c/a"], ["/ab", "/a/b"]),
        ("/usr/**/a/*", ["/usr/a/b", "/usr/x/y/a/b"], ["/usr/a", "/a/b"]),
        ("**", ["/a", "/a/b", "/"], []),
        ("/", ["/"], ["/a"]),
        ("/a?c/[!x-z]", ["/abc/a"], ["/abc/x", "/ac/a", "/a/c/a"]),
        ("/a.c/[", ["/a.c/["], ["/abc/["]),
        ("/[z-a]", [], ["/z", "/a", "/-"]),
    ],
)
def test_patterns_match_whole_paths(pattern: str, matches: list[str], others: list[str]) -> None:
    matcher = path_matcher(pattern)
    assert [path for path in [*matches, *others] if matcher(path)] == matches


def test_patterns_match_without_case_when_told() -> None:
    assert path_matcher("/EFI/*.efi", case_sensitive=False)("/efi/BOOT.EFI")
    assert not path_matcher("/EFI/*.efi")("/efi/BOOT.EFI")


@pytest.mark.skipif(not hasattr(Path, "full_match"), reason="Path.full_match is of Python 3.13")
@settings(max_examples=300)
@given(
    pattern=st.lists(st.sampled_from(["a", "b", "*", "**", "?", "[ab]", "a*"]), min_size=1, max_size=5),
    path=st.lists(st.sampled_from(["a", "b", "ab", "."]), max_size=5),
)
def test_patterns_are_those_of_pathlib(pattern: list[str], path: list[str]) -> None:
    text, wanted = "/" + "/".join(path), "/" + "/".join(pattern)
    assert path_matcher(wanted)(text) == Path(text).full_match(wanted)  # type: ignore[attr-defined]


def test_manifests_of_other_facts_are_not_equal(image: MountedImage) -> None:
    plain, timed = image.manifest(), image.manifest(times=True)
    assert plain != timed
    assert [replace(each, mtime_ns=None) for each in timed] == list(plain)
