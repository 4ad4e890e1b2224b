"""diff: what it finds, how it says it."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_imagemount import FileFacts, ImageDiff, Manifest, diff
from pytest_imagemount.errors import ManifestInvalid
from pytest_imagemount.manifest import order

from .trees import mounted, small_tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_imagemount.mounted_image import MountedImage


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def one(tmp_path: Path) -> MountedImage:
    return mounted(small_tree(tmp_path / "one"), "one.raw", None)


@pytest.fixture
def two(one: MountedImage, tmp_path: Path) -> MountedImage:
    """The same again, times included."""
    shutil.copytree(one.root, tmp_path / "two", symlinks=True, copy_function=_copy)
    return mounted(tmp_path / "two", "two.raw", 1)


def _copy(source: str, target: str) -> str:
    if source.endswith("fifo"):
        os.mkfifo(target, 0o600)
        return target
    return str(shutil.copy2(source, target, follow_symlinks=False))


def change(image: MountedImage) -> None:
    (image / "etc/hostname").chmod(0o600)
    (image / "etc/mtab").unlink()
    (image / "etc/mtab").write_text("")
    (image / "etc.d/empty").unlink()
    (image / "new/deep").mkdir(parents=True)
    (image / "new/deep/file").touch()


LINES = """\
one.raw (-) and two.raw partition 1 (+) differ: 3 added, 1 removed, 2 changed
  ~ /etc/hostname: mode 0o640 -> 0o600
  ~ /etc/mtab: type link -> file; mode 0o777 -> 0o644
  - /etc.d/empty: file 0o644 mary:staff 0 bytes
  + /new: dir 0o755 mary:staff, and 2 below it"""


def test_equal_trees_give_a_false_diff(one: MountedImage, two: MountedImage) -> None:
    found = diff(one, two)
    assert not found
    assert len(found) == 0
    assert found == diff(one, two)
    assert (found.added, found.removed, found.changed) == ({}, {}, {})
    assert str(found) == "one.raw (-) and two.raw partition 1 (+) are equal"
    assert repr(found) == "<ImageDiff: one.raw (-) and two.raw partition 1 (+) are equal>"


def test_it_says_what_was_added_removed_and_changed_and_why(one: MountedImage, two: MountedImage) -> None:
    change(two)
    found = diff(one, two)
    assert found
    assert list(found.added) == ["/new", "/new/deep", "/new/deep/file"]
    assert list(found.removed) == ["/etc.d/empty"]
    assert list(found.changed) == ["/etc/hostname", "/etc/mtab"]
    assert found.changed["/etc/hostname"].reasons == [("mode", "0o640", "0o600")]
    assert found.added["/new"].type == "dir"
    assert str(found) == LINES
    assert repr(found) == f"<ImageDiff: {LINES.splitlines()[0]}: ~/etc/hostname, ~/etc/mtab, -/etc.d/empty, …>"
    backward = diff(two, one)
    assert (list(backward.added), list(backward.removed)) == (list(found.removed), list(found.added))


def test_content_and_times_are_compared_as_asked(one: MountedImage, two: MountedImage) -> None:
    (two / "etc/hostname").write_text("web02\n")
    assert list(diff(one, two).changed) == ["/etc/hostname"]
    assert not diff(one, two, content=False)
    (reason,) = diff(one, two).changed["/etc/hostname"].reasons
    assert reason.fact == "sha256"
    reasons = diff(one, two, content=False, times=True).changed["/etc/hostname"].reasons
    assert [reason.fact for reason in reasons] == ["mtime"]


def test_ignored_paths_are_not_compared(one: MountedImage, two: MountedImage, tmp_path: Path) -> None:
    change(two)
    one.manifest().write(tmp_path / "saved")
    for left in (one, one.manifest(), tmp_path / "saved"):
        assert not diff(left, two, ignore=["/etc/[hm]*", "/etc.d", "/new"])
        assert list(diff(left, two, ignore=["/etc/**", "/new/**"]).changed) == []
        assert list(diff(left, two, ignore=["/etc/**", "/new/**"]).added) == ["/new"]


def test_everything_that_has_facts_can_be_compared(one: MountedImage, two: MountedImage, tmp_path: Path) -> None:
    change(two)
    saved, timed = tmp_path / "saved", tmp_path / "timed"
    two.manifest().write(saved)
    two.manifest(times=True).write(timed)
    for right in (two, two / "/", two.manifest(), saved, str(saved), Manifest.read(timed), timed):
        assert str(diff(one, right)) == LINES
    assert not diff(two, timed, times=True)
    assert [reason.fact for reason in diff(two, saved, times=True).changed["/"].reasons] == ["mtime"]


def test_folders_of_images_are_compared_by_what_is_in_them(one: MountedImage, two: MountedImage) -> None:
    (two / "etc").rename("/config")
    assert not diff(one / "etc", two / "config")
    (two / "config/motd").touch()
    assert str(diff(one / "etc", two / "config")).startswith("one.raw:/etc (-) and two.raw partition 1:/config (+)")


def test_an_image_that_was_not_mounted_is_refused(one: MountedImage, tmp_path: Path) -> None:
    (tmp_path / "disk.raw").write_bytes(bytes(100_000))
    with pytest.raises(ManifestInvalid, match="has to be mounted first"):
        diff(one, tmp_path / "disk.raw")


def test_the_list_is_bounded_and_the_rest_counted(one: MountedImage, two: MountedImage) -> None:
    for number in range(50):
        (two / f"run/{number:02}").touch()
    found = diff(one, two)
    lines = str(found).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  … and 30 more"
    assert len(found.lines(limit=None)) == 51
    assert len(repr(found)) < 200


def test_what_was_in_a_folder_that_became_a_file_is_counted_with_it(one: MountedImage, two: MountedImage) -> None:
    (two / "etc.d/empty").unlink()
    (two / "etc.d").rmdir()
    (two / "etc.d").write_text("")
    assert diff(one, two).lines()[1:] == ["  ~ /etc.d: type dir -> file; mode 0o755 -> 0o644, and 1 below it"]


parts = st.sampled_from(["a", "a.", "a b", "b", "\x1b", "\udcff"])
trees = st.dictionaries(
    st.lists(parts, min_size=1, max_size=3).map(lambda names: "/" + "/".join(names)), st.integers(0, 2), max_size=8
)


def facts_of(tree: dict[str, int]) -> Manifest:
    facts = [FileFacts(path=path, type="file", mode=mode, uid=0, gid=0, size=0) for path, mode in tree.items()]
    return Manifest("x:", sorted(facts, key=order))


@given(trees, trees)
def test_it_is_the_difference_of_the_sets(left: dict[str, int], right: dict[str, int]) -> None:
    found = diff(facts_of(left), facts_of(right))
    assert set(found.added) == right.keys() - left.keys()
    assert set(found.removed) == left.keys() - right.keys()
    assert set(found.changed) == {path for path in left.keys() & right.keys() if left[path] != right[path]}
    assert bool(found) == (facts_of(left) != facts_of(right)) == (left != right)
    assert all(line.isprintable() for line in found.lines())
    shown = sum(
        int(line.rpartition("and ")[2].split()[0]) + 1 if " below it" in line else 1 for line in found.lines(None)
    )
    assert shown == len(found) + 1


def test_two_diffs_are_equal_where_they_say_the_same(one: MountedImage, two: MountedImage) -> None:
    change(two)
    found = diff(one, two)
    assert found == diff(one, two.manifest())
    assert found != replace(found, changes=())
    assert isinstance(found, ImageDiff)
