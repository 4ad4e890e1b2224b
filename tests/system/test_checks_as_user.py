"""Check files run by a plain user: with sudo, files that only root may read are checked too."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount import Directory, File, Symlink, build_image

from .plain_user import PlainUser, plain_user

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_imagemount.factory.content import Device, Hardlink

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs", "libblkid")

CHECKS = """
disk: {table: none}
files:
  /etc/shadow: {mode: 0600, contains: secret}
  /closed/deep/*: {count: 1}
rules:
  no-setuid: true
  no-secrets: true
  no-world-writable: true
"""


@pytest.fixture(scope="module")
def user() -> Iterator[PlainUser]:
    with plain_user() as made:
        image = made.home / "disk.raw"
        content: dict[str, str | bytes | File | Directory | Symlink | Device | Hardlink] = {
            "etc/shadow": File("root:secret\n", mode=0o600),
            "closed": Directory(mode=0o700),
            "closed/deep": Directory(mode=0o700),
            "closed/deep/su": File(b"x", mode=0o4700),
            "root/.netrc": File("machine x\n", mode=0o600),
        }
        build_image(made.home / "built.raw", fstype="ext4", content=content)
        made.own(image, (made.home / "built.raw").read_bytes())
        made.own(made.home / "base.imagecheck.yaml", CHECKS.encode())
        yield made


def check(user: PlainUser, *options: str) -> str:
    command = (sys.executable, "-m", "pytest_imagemount.cli", "check", "disk.raw", "base.imagecheck.yaml", "--json")
    return user.run(*command, *options).stdout


def failed(output: str) -> dict[str, str]:
    """Check to message, of those that failed."""
    found = json.loads(output[output.index("{\n") :])
    return {each["check"]: each["message"] for each in found["checks"] if each["outcome"] == "failed"}


def test_with_sudo_folders_that_only_root_may_enter_are_checked(user: PlainUser) -> None:
    user.allow_sudo()
    found = failed(check(user))
    assert set(found) == {"rules:no-setuid", "rules:no-secrets"}
    assert "  /closed/deep/su\n    rule  expected no setuid, no setgid\n" in found["rules:no-setuid"]
    assert "  /root/.netrc\n    rule  expected no secret\n" in found["rules:no-secrets"]


def test_without_sudo_checks_of_the_disk_run_and_all_others_say_what_is_missing(user: PlainUser) -> None:
    user.forbid_sudo()
    found = failed(check(user))
    assert len(found) == 5
    assert "disk" not in found
    assert "root is not available here" in found["files:/etc/shadow"]
