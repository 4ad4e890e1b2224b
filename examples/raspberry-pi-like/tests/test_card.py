"""The two partitions must fit each other: the firmware, the kernel and systemd each look for the next by its name."""

import struct

import pytest


@pytest.fixture(scope="module")
def signature(image_path):
    """The disk signature, from which the kernel makes the PARTUUIDs of an MBR."""
    with image_path.open("rb") as file:
        file.seek(440)
        return f"{struct.unpack('<I', file.read(4))[0]:08x}"


def test_the_kernel_finds_the_root_partition(firmware, image, signature):
    words = dict(word.partition("=")[::2] for word in firmware.kernel_cmdline.split())
    assert words["root"] == f"PARTUUID={signature}-{image.partition:02}"
    assert words["rootfstype"] == image.fstype


def test_the_command_line_is_one_line(firmware):
    assert (firmware / "cmdline.txt").read_text().count("\n") == 1, "the firmware reads the first line only"


def test_fstab_names_both_partitions(firmware, image, signature):
    sources = {entry.target: entry.source for entry in image.fstab}
    assert sources["/"] == f"PARTUUID={signature}-{image.partition:02}"
    assert sources["/boot/firmware"] == f"PARTUUID={signature}-{firmware.partition:02}"


def test_mount_points_of_fstab_exist(image):
    for entry in image.fstab:
        if entry.fstype != "proc":
            assert (image / entry.target).is_dir(), f"{entry.source} is to be mounted at {entry.target}"


def test_the_firmware_finds_what_config_txt_names(firmware):
    lines = (firmware / "config.txt").read_text().splitlines()
    settings = [line.split("=", 1) for line in lines if "=" in line]
    for name, value in settings:
        if name == "kernel":
            assert (firmware / value).is_file()
        elif name == "dtoverlay":
            assert (firmware / f"overlays/{value.partition(',')[0]}.dtbo").is_file()
    assert ["arm_64bit", "1"] in settings


@pytest.mark.parametrize("name", ["start4.elf", "fixup4.dat", "bcm2711-rpi-4-b.dtb"])
def test_a_pi_4_starts_from_it(firmware, name):
    assert (firmware / name).stat().st_size > 0


def test_programs_are_for_the_pi(image):
    assert image.os.architecture == "aarch64"
