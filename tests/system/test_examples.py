"""The example suites, run as their users' CI would run them: by the commands in their own CI files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from pytest_imagemount.capabilities import missing

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.needs("privileged", "loop", "ext4", "mke2fs")


class Suite(NamedTuple):
    """A folder of :data:`EXAMPLES`; ``passed`` is how many tests it has."""

    folder: str
    passed: int
    vfat: bool = False


_VFAT = pytest.mark.needs("mkfs.vfat", "mtools")
SUITES = [
    pytest.param(Suite("mkosi-like", 23, vfat=True), marks=_VFAT),
    pytest.param(Suite("raspberry-pi-like", 25, vfat=True), marks=_VFAT),
    pytest.param(Suite("cloud-image", 28, vfat=True), marks=[_VFAT, pytest.mark.needs("qemu", "qemu-img")]),
    pytest.param(Suite("image-editor", 25), marks=pytest.mark.needs("qemu", "qemu-img", "fuse")),
    pytest.param(Suite("reproducible-build", 4)),
]


def suite_name(suite: Suite) -> str:
    return suite.folder


def github(folder: Path) -> dict[str, str]:
    """The commands of the only job for GitHub, by the names of their steps."""
    (file,) = (folder / ".github/workflows").glob("*.yml")
    (job,) = yaml.safe_load(file.read_text())["jobs"].values()
    return {step["name"]: step["run"] for step in job["steps"] if "run" in step}


def gitlab(folder: Path) -> dict[str, Any]:
    """The only job for GitLab."""
    (job,) = yaml.safe_load((folder / ".gitlab-ci.yml").read_text()).values()
    assert isinstance(job, dict)
    return job


@pytest.mark.parametrize("suite", SUITES, ids=suite_name)
def test_a_suite_passes_by_the_commands_of_its_ci(suite: Suite, tmp_path: Path) -> None:
    folder = tmp_path / suite.folder
    shutil.copytree(EXAMPLES / suite.folder, folder, ignore=shutil.ignore_patterns("__pycache__", "output"))
    if suite.vfat and missing("vfat"):
        # As on a runner whose kernel lacks something: in the lab, which is GitLab's way here.
        if reason := missing("lab"):
            pytest.skip(f"needs vfat or lab: {reason}")
        commands = gitlab(folder)["script"]
    else:
        commands = [command for step, command in github(folder).items() if step != "Install"]
    output = "".join(run(command, folder) for command in commands)
    assert f"{suite.passed} passed" in output, output
    for word in ("failed", "error", "skipped"):
        assert f" {word}" not in output.splitlines()[-1], output
    assert (folder / "report.xml").stat().st_size > 0


@pytest.mark.parametrize("suite", SUITES, ids=suite_name)
def test_both_ci_files_say_the_same(suite: Suite) -> None:
    folder = EXAMPLES / suite.folder
    steps, job = github(folder), gitlab(folder)
    tested = [command for step, command in steps.items() if step != "Install"]
    assert job["script"] == [*tested[:-1], f"imagemount lab -- {tested[-1]}"]
    (package,) = {line for line in steps["Install"].splitlines() if line.startswith("pip install ")}
    assert package in job["before_script"]
    extra = "[checks]" if list(folder.rglob("*.imagecheck.yaml")) else ""
    assert package.removeprefix("pip install ").strip("'") == f"pytest-imagemount{extra}"


def run(command: str, folder: Path) -> str:
    """What ``command`` prints; it must end well."""
    scripts = sysconfig.get_path("scripts")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "IMAGEMOUNT_"))}
    done = subprocess.run(
        ["sh", "-e", "-c", command],
        cwd=folder,
        env={**environment, "PATH": f"{scripts}:{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout
