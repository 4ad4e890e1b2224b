import pytest


@pytest.fixture(scope="module")
def firmware(image_path, module_mounted_image):
    """The firmware's partition; the root partition is the fixture ``image``."""
    with module_mounted_image(image_path, partition=1) as mounted:
        yield mounted
