"""Programs that change images: in overlay mode what they write is thrown away; small images are made to measure."""

import os
import subprocess

import pytest


def set_hostname(root, name):
    """The program under test: configures the system below a folder, here an image."""
    (root / "etc/hostname").write_text(f"{name}\n")


def test_the_program_renames_a_system(mounted_image):
    with mounted_image("disk.qcow2", partition=2, mode="overlay") as image:
        set_hostname(image, "web02")
        assert (image / "etc/hostname").read_text() == "web02\n"

    with mounted_image("disk.qcow2", partition=2) as image:
        assert (image / "etc/hostname").read_text() == "web01\n"


def test_the_program_copes_with_an_empty_system(image_factory, mounted_image):
    disk = image_factory(fstype="ext4", content={"etc/hostname": ""})
    with mounted_image(disk, mode="rw") as image:
        set_hostname(image, "new")
    with mounted_image(disk) as image:
        assert (image / "etc/hostname").read_text() == "new\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="a device node belongs to root")
def test_other_programs_get_the_device(attached_image):
    with attached_image("disk.qcow2", partition=2) as device:
        found = subprocess.run(
            ["blkid", "-p", "-o", "value", "-s", "LABEL", device.path], capture_output=True, text=True, check=True
        )
    assert found.stdout == "root\n"
