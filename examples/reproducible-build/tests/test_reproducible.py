"""Two builds compared: byte by byte, file by file, and with the last release."""

from pathlib import Path

import pytest

from pytest_imagemount import Manifest, diff

RELEASED = Path(__file__).parents[1] / "released.manifest"


@pytest.fixture(scope="module")
def builds(build_twice):
    return build_twice()


def test_two_builds_hold_the_same_files(builds, mounted_image):
    with mounted_image(builds[0]) as first, mounted_image(builds[1]) as second:
        assert not diff(first, second)


def test_two_builds_are_the_same_bytes(builds):
    assert builds[0].read_bytes() == builds[1].read_bytes()


def test_a_careless_build_is_found_out(build_twice, mounted_image):
    first, second = build_twice("--careless")
    with mounted_image(first) as left, mounted_image(second) as right:
        found = diff(left, right)
    assert sorted(found.changed) == ["/etc/appliance.conf", "/etc/built", "/var/lib/appliance/seed"]
    assert found.added == found.removed == {}
    assert "/etc/built" in str(found)


def test_what_changed_since_the_last_release_was_meant(builds, mounted_image):
    with mounted_image(builds[0]) as image:
        found = diff(Manifest.read(RELEASED), image)
    assert sorted(found.added) == []
    assert sorted(found.removed) == []
    assert sorted(found.changed) == ["/etc/appliance.conf", "/usr/lib/os-release"]  # plugin dns, and the version
