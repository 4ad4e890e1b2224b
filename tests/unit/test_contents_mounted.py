"""The facts as properties of a mounted image."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import pytest

import pytest_imagemount
from pytest_imagemount.errors import FactsInvalid, FactsMissing, ImageUnmounted, from_wire
from pytest_imagemount.mounted_image import MountedImage

from .system_tree import make_tree
from .trees import facts_of

if TYPE_CHECKING:
    from pathlib import Path

FACTS = ("os", "packages", "users", "groups", "services", "fstab", "cron", "kernel_cmdline", "bootloader")


def mounted(folder: Path, mode: str = "ro") -> MountedImage:
    return MountedImage(facts_of(folder, mode=mode), lambda: None)


@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_that_the_image_does_not_have_is_an_error(fact: str, tmp_path: Path) -> None:
    with pytest.raises(FactsMissing, match=r"image 'disk\.raw' has no") as caught:
        getattr(mounted(tmp_path), fact)
    assert caught.value.looked
    assert caught.value.hint in str(caught.value)


def test_the_facts_of_a_small_system(tmp_path: Path) -> None:
    make_tree(
        tmp_path,
        {
            "etc/os-release": "ID=probe\n",
            "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
            "etc/group": "root:x:0:\n",
            "etc/fstab": "a / ext4\n",
            "etc/crontab": "@daily root x\n",
            "etc/kernel/cmdline": "quiet\n",
            "boot/grub/grub.cfg": "menuentry x {\n}\n",
            "lib/apk/db/installed": "P:musl\nV:1-r0\n",
            "etc/init.d/": "",
        },
    )
    image = mounted(tmp_path)
    assert (image.os.id, list(image.packages), list(image.users), list(image.groups)) == (
        "probe",
        ["musl"],
        ["root"],
        ["root"],
    )
    assert (image.fstab[0].target, image.cron[0].command, image.ssh_host_keys) == ("/", "x", ())
    assert (image.kernel_cmdline, image.bootloader.kind, dict(image.services)) == ("quiet", "grub", {})


def test_a_fact_is_read_once_where_the_image_cannot_change(tmp_path: Path) -> None:
    make_tree(tmp_path, {"etc/fstab": "a / ext4\n"})
    image = mounted(tmp_path)
    assert image.fstab is image.fstab


@pytest.mark.parametrize("mode", ["overlay", "rw"])
def test_a_fact_is_read_anew_where_the_image_can_change(mode: str, tmp_path: Path) -> None:
    make_tree(tmp_path, {"etc/fstab": "a / ext4\n"})
    image = mounted(tmp_path, mode)
    assert image.fstab[0].source == "a"
    (image / "etc/fstab").write_text("b / ext4\n")
    assert image.fstab[0].source == "b"


def test_after_the_unmount_what_was_read_stays_and_the_rest_is_an_error(tmp_path: Path) -> None:
    make_tree(tmp_path, {"etc/fstab": "a / ext4\n"})
    image = mounted(tmp_path)
    fstab = image.fstab
    image.unmount()
    assert image.fstab is fstab
    with pytest.raises(ImageUnmounted):
        _ = image.users


@pytest.mark.parametrize(
    "error",
    [
        FactsMissing(image="disk.raw", fact="fstab", looked=["/etc/fstab"], hint="do this"),
        FactsInvalid(image="disk.raw", path="/etc/fstab", line=3, reason="is bad", hint="do that"),
    ],
)
def test_the_errors_travel(error: FactsMissing | FactsInvalid) -> None:
    for copy in (pickle.loads(pickle.dumps(error)), from_wire(error.to_wire())):
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_the_types_of_the_facts_are_exported() -> None:
    for name in ("BootEntry", "Bootloader", "CronJob", "FstabEntry", "Group", "OsFacts", "Package", "Service", "User"):
        assert getattr(pytest_imagemount, name).__name__ == name
