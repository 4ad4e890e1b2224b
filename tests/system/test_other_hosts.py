"""Workers on another host, by ``--tx ssh=…``: an sshd on loopback that sees a /run of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount.engine.undo import wait_until
from pytest_imagemount.programs import find_program, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs")

# Read here, for ``pytester`` takes CI out of the environment of a test.
MUST_RUN = bool(os.environ.get("IMAGEMOUNT_REQUIRE") or os.environ.get("CI"))

# Another host has its own locks, run folder and host name; the image's path is all that is shared.
HOST = """
mount -t tmpfs tmpfs /run && mkdir -p /run/lock /run/sshd && hostname other-host && exec "$@"
"""

SUITE = """
import os, socket
import pytest
from pathlib import Path

def held():
    return sorted(path.name for path in Path("/run/pytest-imagemount/0").iterdir())

@pytest.mark.parametrize("number", range(6))
def test_it(number, mounted_image):
    assert socket.gethostname() == "other-host"
    with mounted_image({disk!r}, backend="loop") as image:
        assert (image / "etc/hostname").read_text() == "web01\\n"
        assert len(held()) >= 1
        print("helpers", held())
"""


@pytest.fixture
def other_host(tmp_path: Path) -> Iterator[str]:
    """The ssh arguments that lead to it; it ends with the test."""
    for name in ("host_key", "key"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": tmp_path / "host_key",
        "AuthorizedKeysFile": tmp_path / "key.pub",
        "PidFile": "none",
        "PermitRootLogin": "yes",
        "StrictModes": "no",
        "UsePAM": "no",
    }
    if path := os.environ.get("PYTHONPATH"):
        options["SetEnv"] = f"PYTHONPATH={path}"
    sshd = find_program("sshd")
    if sshd is None:
        report = pytest.fail if MUST_RUN else pytest.skip
        report("sshd is not installed: apt-get install openssh-server openssh-client")
    settings = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    log = tmp_path / "sshd.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["unshare", "--mount", "--uts", "sh", "-ec", HOST, "sh", sshd, "-D", "-e", "-f", "/dev/null", *settings],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        assert wait_until(lambda: _listens(port), 10), log.read_text()
        yield (
            f"-p {port} -i {tmp_path / 'key'} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
            "-o LogLevel=ERROR root@127.0.0.1"
        )
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


def test_workers_on_another_host_have_their_own_helpers_and_locks(
    other_host: str, pytester: pytest.Pytester, image_factory: ImageBuilder, tmp_path: Path
) -> None:
    disk = image_factory(fstype="ext4", content={"etc/hostname": "web01\n"})
    suite = pytester.mkdir("suite")
    suite.joinpath("test_there.py").write_text(SUITE.format(disk=str(disk)))
    there = tmp_path / "there"
    there.mkdir()
    transport = f"2*ssh={other_host}//python={sys.executable}//chdir={there}"
    result = pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-rP", "--dist=load", f"--tx={transport}", f"--rsyncdir={suite}", str(suite)
    )
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["helpers [[]*"])
