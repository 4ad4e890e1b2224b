"""Every example is run as it stands, by copying it; so are the README's code blocks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

SYSTEM = {
    "etc/hostname": "web01\n",
    "etc/os-release": "ID=example\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
}

pytestmark = pytest.mark.needs("root", "loop", "fuse", "ext4", "squashfs", "mke2fs", "mksquashfs", "qemu-img")


@pytest.fixture
def images(pytester: pytest.Pytester) -> Path:
    """A copy of examples/ with its images built, as the working folder."""
    for file in (ROOT / "examples").iterdir():
        if file.is_file():
            shutil.copy(file, pytester.path)
    subprocess.run([sys.executable, "build_images.py"], check=True, stdout=subprocess.DEVNULL)
    return pytester.path / "images"


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_the_examples_pass(images: Path, pytester: pytest.Pytester, options: tuple[str, ...]) -> None:
    pytester.runpytest_subprocess(*options).assert_outcomes(passed=9)


def test_the_readmes_tests_pass(images: Path, pytester: pytest.Pytester) -> None:
    blocks = [block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "def test_" in block]
    assert len(blocks) >= 2
    for file in pytester.path.glob("test_*.py"):
        file.unlink()
    # The README's first example has its root file system on partition 1.
    from pytest_imagemount import build_image

    build_image(
        images / "disk.qcow2",
        format="qcow2",
        table="gpt",
        partitions=[{"fstype": "ext4", "content": SYSTEM}],
    )
    pytester.makepyfile("\n\n".join(blocks))
    pytester.runpytest_subprocess().assert_outcomes(passed=len(blocks))


def test_the_readmes_options_are_the_plugins(pytester: pytest.Pytester) -> None:
    shown = pytester.runpytest_subprocess("--help").stdout.str()
    options = set(re.findall(r"--imagemount-[a-z-]+", shown))
    assert options == set(re.findall(r"--imagemount-[a-z-]+", README))
    assert {f"imagemount_{name[13:].replace('-', '_')}" for name in options} <= set(
        re.findall(r"imagemount_[a-z_]+", shown)
    )
