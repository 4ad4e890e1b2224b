"""The small form of ``./tests/soak``: many mounts, some workers killed; nothing grows and nothing is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("root", "loop", "fuse", "qemu-img", "ext4", "mke2fs")

AMOUNTS = ("--raw=300", "--qcow2=100", "--workers=2", "--tests=30", "--kills=2")


def test_hundreds_of_mounts_and_killed_workers_leave_nothing_and_nothing_grows() -> None:
    # In a process of its own, which nothing else makes grow.
    done = subprocess.run(
        [sys.executable, "-m", "tests.soaking", *AMOUNTS],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 cycles raw" in done.stdout
    assert "2 workers killed" in done.stdout
