"""The system partition, and the ESP beside it."""

import json

import pytest


def test_the_packages_are_those_of_the_manifest(image, image_path):
    manifest = json.loads(image_path.with_suffix(".manifest").read_text())
    built = {package["name"]: package["version"] for package in manifest["packages"]}
    assert {name: package.version for name, package in image.packages.items()} == built


def test_services_are_enabled_as_the_presets_say(image):
    states = {name: (unit.state, unit.preset) for name, unit in image.services.items() if unit.preset}
    assert states
    assert {name for name, (state, preset) in states.items() if state != preset} == set()


def test_services_run_programs_that_are_there(image):
    for unit in (image / "etc/systemd/system/multi-user.target.wants").iterdir():
        lines = unit.read_text().splitlines()
        (program,) = [line.removeprefix("ExecStart=").split()[0] for line in lines if line.startswith("ExecStart=")]
        assert (image / program).stat().st_mode & 0o111, f"{unit.name} runs {program}"


@pytest.fixture(scope="module")
def esp(image_path, module_mounted_image):
    """The EFI system partition."""
    with module_mounted_image(image_path, partition="PARTLABEL=esp") as mounted:
        yield mounted


def test_the_boot_entry_starts_a_kernel_that_has_its_modules(esp, image):
    (entry,) = esp.bootloader.entries
    assert (esp / entry.linux).is_file()
    assert all((esp / initrd).is_file() for initrd in entry.initrd)
    assert [kernel for kernel in image.os.kernels if kernel in entry.linux] == list(image.os.kernels)


def test_the_firmware_finds_a_loader(esp):
    assert (esp / "EFI/BOOT/BOOTX64.EFI").read_bytes()[:2] == b"MZ"
