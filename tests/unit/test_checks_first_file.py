"""The file that --init writes: it passes on the image that it was written from."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount import Partition, build_image
from pytest_imagemount.checks.document import load_documents
from pytest_imagemount.checks.first_file import first_file, write_first_file
from pytest_imagemount.checks.first_sections import quoted
from pytest_imagemount.checks.plan import load_plans
from pytest_imagemount.errors import RequestInvalid
from tests.unit.checked_image import FolderImage, failures, write_tree
from tests.unit.test_checks_kinds import KEY, TREE

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.needs("libblkid", "mke2fs")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "root"
    write_tree(tree, TREE)
    return tree


@pytest.fixture
def image(tree: Path, tmp_path: Path) -> FolderImage:
    disk = build_image(
        tmp_path / "disk.raw", table="gpt", partitions=[Partition(size="1M", name="a: b"), Partition(fstype="ext4")]
    )
    return FolderImage(tree, disk)


def test_it_passes_on_its_image(image: FolderImage, tmp_path: Path) -> None:
    text = first_file(image, "base.imagecheck.yaml")
    assert failures(text, image, tmp_path) == ""


def test_it_has_what_tells_most(image: FolderImage) -> None:
    lines = first_file(image, "base.imagecheck.yaml").splitlines()
    for line in (
        "#   imagemount check disk.raw base.imagecheck.yaml",
        '  version: "12"',
        '  kernel: "6.1.*"',
        "  openssh-server: installed",
        "  deploy: {uid: 1000, group: docker, home: /srv/app, shell: /bin/bash, password: locked}",
        "  wheel: {members: [alice, bob]}",
        "  ssh.service: enabled",
        "  /: {source: LABEL=root, type: ext4}",
        "  swap: {source: UUID=1, type: swap}",
        "  contains: [ro, quiet, console=ttyS0]",
        "  table: gpt",
        '  1: {label: "a: b", type: linux-generic, min-size: "1 MiB"}',
        "  machine-id-empty: true",
        "  # no-empty-passwords: true   # the image breaks it:",
    ):
        assert line in lines


def test_programs_with_setuid_become_exceptions(image: FolderImage, tree: Path, tmp_path: Path) -> None:
    (tree / "usr/bin/passwd").chmod(0o4755)
    text = first_file(image, "f")
    assert "  no-setuid:\n    except:\n      - /usr/bin/passwd\n" in text
    assert failures(text, image, tmp_path) == ""


def test_names_and_words_with_the_characters_of_patterns_stand_for_themselves(
    image: FolderImage, tree: Path, tmp_path: Path
) -> None:
    write_tree(tree, {"usr/bin/su[1]": "x"})
    (tree / "usr/bin/su[1]").chmod(0o4755)
    entry = tree / "boot/loader/entries/one.conf"
    entry.write_text("title One\nlinux /vmlinuz\noptions dyndbg=[*]\n")
    text = first_file(image, "f")
    assert '      - "/usr/bin/su[[]1]"\n' in text
    assert failures(text, image, tmp_path) == ""


def test_secrets_do_not_become_exceptions(image: FolderImage, tree: Path, tmp_path: Path) -> None:
    write_tree(tree, {"root/key": KEY})
    text = first_file(image, "f")
    assert '  # no-secrets: true   # the image breaks it:\n  #   "/root/key"\n' in text
    assert failures(text, image, tmp_path) == ""


def test_what_an_image_lacks_is_a_comment(tmp_path: Path) -> None:
    tree = tmp_path / "empty"
    tree.mkdir()
    disk = build_image(tmp_path / "disk.raw", fstype="ext4", size="2M")
    image = FolderImage(tree, disk)
    text = first_file(image, "f")
    for name in ("os", "packages", "users", "fstab"):
        assert f"\n# {name}: " in text
    assert failures(text, image, tmp_path) == ""


def test_a_system_without_os_release_has_rules_and_the_scripts_of_its_init(image: FolderImage, tree: Path) -> None:
    for name in ("etc/os-release", "usr/lib/os-release"):
        (tree / name).unlink()
    shutil.rmtree(tree / "usr/lib/systemd")
    shutil.rmtree(tree / "etc/systemd")
    write_tree(tree, {"etc/init.d/S40net": "#!/bin/sh\n"})
    (tree / "etc/init.d/S40net").chmod(0o755)
    text = first_file(image, "f")
    assert "\n# os: image 'disk.raw' has no os-release\n" in text
    assert "\nservices:\n  S40net: enabled\n" in text
    assert "\n  machine-id-empty: true\n" in text
    assert failures(text, image, tree.parent) == ""


def test_what_cannot_be_read_is_a_comment(image: FolderImage, tree: Path, tmp_path: Path) -> None:
    for name in ("etc/fstab", "etc/shadow"):
        (tree / name).unlink()
        os.mkfifo(tree / name)
    text = first_file(image, "f")
    assert "\n# fstab: cannot be read: disk.raw partition 2:/etc/fstab: This is a FIFO, " in text
    assert "\n  # no-empty-passwords: true   # cannot be read: disk.raw partition 2:/etc/shadow: This is a FIFO" in text
    assert failures(text, image, tmp_path) == ""


def test_the_partition_that_was_asked_for_is_in_the_file(image: FolderImage, tmp_path: Path) -> None:
    image.choice = image.choice._replace(name="out put/disk.raw", partition="LABEL=root")
    text = first_file(image, "f")
    assert "\n#   imagemount check 'out put/disk.raw' f\n" in text
    file = tmp_path / "f.imagecheck.yaml"
    file.write_text(text)
    (plan,) = load_plans(file)
    assert plan.image.partition == "LABEL=root"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("nowhere/base.imagecheck.yaml", "there is no folder "),
        ("link.imagecheck.yaml", "cannot be written: File exists"),
    ],
)
def test_a_file_that_cannot_be_written_is_an_error(
    file: str, reason: str, image: FolderImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link.imagecheck.yaml").symlink_to("nowhere")
    monkeypatch.setattr("pytest_imagemount.checks.first_file.first_file", lambda *_: "")
    with pytest.raises(RequestInvalid, match=reason):
        write_first_file(str(image.choice.path), [str(tmp_path / file)], partition="auto", format=None)


@pytest.mark.parametrize(
    "text",
    ["a", "no", "y", "~", "12", "1.2", "0640", "a: b", "a#b", "- a", "é", "[a]", "*", "a\nb", "", "true", "6.1.*",
     "12:30", "LABEL=root", "x:", "\ud800", "!x", "%", "@a", "`a", ">= 1", "a, b", "{", "-", "---", "null", "1e3"],
)  # fmt: skip
def test_every_text_is_quoted_so_that_it_reads_the_same(text: str, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(f"key: {{inner: {quoted(text)}, list: [{quoted(text)}]}}\n")
    (document,) = load_documents(file)
    assert document.value == {"key": {"inner": text, "list": [text]}}
