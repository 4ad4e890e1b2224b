import os
import subprocess
import sys
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[1] / "build.py"
SURROUNDINGS = (
    {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "1"},
    {"TZ": "Pacific/Kiritimati", "LC_ALL": "POSIX", "PYTHONHASHSEED": "2"},
)


@pytest.fixture(scope="session")
def build_twice(tmp_path_factory):
    """Builds in two surroundings: build_twice("--careless") gives the paths of two images."""

    def build(*options):
        images = []
        for number, surroundings in enumerate(SURROUNDINGS):
            folder = tmp_path_factory.mktemp(f"surroundings-{number}")
            subprocess.run(
                [sys.executable, BUILD, *options, folder / "appliance.raw"],
                cwd=folder,
                env={**os.environ, **surroundings},
                umask=(0o022, 0o077)[number],
                check=True,
            )
            images.append(folder / "appliance.raw")
        return images

    return build
