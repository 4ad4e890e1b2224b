"""A qcow2 with partitions: mounted once for the module, read by every test."""

import csv
import stat

import pytest


@pytest.fixture(scope="module")
def system(module_mounted_image):
    """The root file system of the server image."""
    with module_mounted_image("disk.qcow2", partition="PARTLABEL=system") as image:
        yield image


def test_hostname(system):
    assert (system / "etc/hostname").read_text() == "web01\n"


def test_absolute_links_stay_inside_the_image(system):
    assert 'PRETTY_NAME="Example Linux 1"' in (system / "etc/os-release").read_text()


def test_passwd_is_setuid_root(system):
    status = (system / "usr/bin/passwd").stat()
    assert stat.S_IMODE(status.st_mode) == 0o4755
    assert status.st_uid == 0


def test_the_page_belongs_to_the_web_server(system):
    assert (system / "var/www/index.html").owner() == "www"


def test_the_boot_entry_names_the_root_file_system(mounted_image, system):
    with mounted_image("disk.qcow2", partition=1) as boot:
        assert f"root=LABEL={system.label}" in (boot / "loader/entries/example.conf").read_text()


def test_data_of_the_raw_image(mounted_image):
    with mounted_image("data.raw") as image, (image / "data/colours.csv").open() as file:
        assert list(csv.DictReader(file)) == [{"name": "red", "hex": "#ff0000"}]
