"""Runs in what containers are made of: fewer capabilities, namespaces of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_imagemount import build_image

pytestmark = pytest.mark.needs("root", "loop", "fuse", "ext4", "mke2fs")

_CHECKOUT = Path(__file__).parents[2]
_WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
_ROOTLESS = ("unshare", "--user", "--map-root-user", "--mount")
_TESTS = """
def test_raw(mounted_image):
    with mounted_image({raw!r}) as image:
        assert (image / "name").read_text() == "one"

def test_qcow2(mounted_image):
    with mounted_image({qcow2!r}, backend="fuse") as image:
        assert (image / "name").read_text() == "one"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a test of a raw image and one of a qcow2 image."""
    raw = build_image(tmp_path / "disk.raw", fstype="ext4", content={"name": "one"})
    qcow2 = build_image(tmp_path / "disk.qcow2", format="qcow2", fstype="ext4", content={"name": "one"})
    (tmp_path / "test_it.py").write_text(_TESTS.format(raw=str(raw), qcow2=str(qcow2)))
    return tmp_path


def run(project: Path, container: tuple[str, ...], *options: str) -> str:
    """What pytest prints in ``container``, without the line breaks of the terminal."""
    code = f"import sys; sys.path.insert(0, {str(_CHECKOUT)!r}); import pytest; sys.exit(pytest.main(sys.argv[1:]))"
    argv = [*container, sys.executable, "-c", code, "-p", "no:cacheprovider", "-rs", *options]
    return subprocess.run(argv, cwd=project, stdout=subprocess.PIPE, text=True, check=False, timeout=120).stdout


def test_a_pid_namespace_may_have_the_proc_of_another(project: Path) -> None:
    assert "2 passed" in run(project, ("unshare", "--pid", "--fork"))


def test_without_proc_the_error_says_so(project: Path) -> None:
    output = run(project, ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"))
    assert "2 failed" in output
    assert output.count("CapabilityMissing: proc is not available here: /proc is not mounted") >= 2


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        (_WITHOUT_PRIVILEGE, "root is not available here: root lacks CAP_SYS_ADMIN here"),
        (_ROOTLESS, "root is not available here: root of a user namespace (a rootless container) may not mount"),
    ],
    ids=["without-privilege", "rootless"],
)
def test_what_a_container_may_not_do_is_unavailable(project: Path, container: tuple[str, ...], reason: str) -> None:
    failed = run(project, container)
    assert "2 failed" in failed
    assert failed.count(f"CapabilityMissing: {reason}") >= 2
    assert "2 skipped" in run(project, container, "--imagemount-unavailable=skip")
