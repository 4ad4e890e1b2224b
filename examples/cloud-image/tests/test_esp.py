"""The EFI system partition."""

import pytest


@pytest.fixture(scope="module")
def esp(image_path, module_mounted_image):
    with module_mounted_image(image_path, partition="PARTLABEL=esp") as mounted:
        yield mounted


def test_it_starts_without_an_entry_in_the_firmware(esp):
    assert (esp / "EFI/BOOT/BOOTX64.EFI").is_file(), "machines made from the image have no boot entries of their own"


def test_fstab_mounts_it_by_its_label(esp, image):
    (entry,) = [entry for entry in image.fstab if entry.target == "/boot/efi"]
    assert (entry.source, entry.fstype) == (f"LABEL={esp.label}", esp.fstype)
    assert "umask=0077" in entry.options
