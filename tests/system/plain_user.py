"""A plain user of this machine who may use sudo, or not, and programs that run as that user.

The Python that runs the tests may lie where only root may go (in /root). Then programs of the user get a mount
namespace in which the closed folder has nothing but that Python and this checkout in it.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
import site
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

import pytest_imagemount
from pytest_imagemount.engine.folders import base_folder
from pytest_imagemount.errors import ProgramFailed
from pytest_imagemount.programs import find_program, run

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]
ENTER = Path(__file__).with_name("enter_as_user.py")
_TIMEOUT = 300


@dataclass(frozen=True)
class PlainUser:
    """A user who was made for tests; ``home`` belongs to it."""

    name: str
    uid: int
    gid: int
    home: Path
    rules: Path

    def allow_sudo(self, *settings: str) -> None:
        """Let the user run ``sudo -n`` as root; ``settings`` are Defaults for this user, as ``use_pty``."""
        lines = [f"{self.name} ALL=(root) NOPASSWD: ALL"]
        lines += [f"Defaults:{self.name} {setting}" for setting in settings]
        written = self.rules.with_suffix(".new")  # sudo reads no file with a dot in its name
        written.touch(mode=0o440)
        written.write_text("".join(f"{line}\n" for line in lines))
        run(["visudo", "-c", "-q", "-f", str(written)])
        written.rename(self.rules)

    def forbid_sudo(self) -> None:
        """Take that back."""
        self.rules.unlink(missing_ok=True)

    def argv(self, *argv: str | Path) -> list[str]:
        """What root runs, to run ``argv`` as this user."""
        needed = [str(folder) for folder in _needed_folders()]
        who = {"name": self.name, "uid": self.uid, "gid": self.gid, "needed": needed, "home": str(self.home)}
        return ["unshare", "--mount", sys.executable, "-I", str(ENTER), json.dumps(who), *map(str, argv)]

    def run(self, *argv: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``argv`` to its end; stdout and stderr are one text."""
        return subprocess.run(
            self.argv(*argv),
            cwd=cwd or self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )

    def start(self, code: str, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start Python with ``code`` as this user; its pid is that of the Popen object."""
        return subprocess.Popen(
            self.argv(sys.executable, "-c", code, *arguments),
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def python(self, code: str, *arguments: str | Path) -> str:
        """What ``code`` prints; it fails the test when it fails."""
        done = self.run(sys.executable, "-c", code, *arguments)
        assert done.returncode == 0, done.stdout
        return done.stdout.strip()

    def own(self, path: Path, content: bytes) -> Path:
        """File ``path`` with ``content``, made to belong to this user."""
        path.write_bytes(content)
        os.chown(path, self.uid, self.gid)
        return path


@contextmanager
def plain_user() -> Iterator[PlainUser]:
    """A new user with a Python; the test is skipped, or failed where IMAGEMOUNT_REQUIRE names sudo, if that cannot be.

    What the user's home has in it, is removed at the end.
    """
    _require_programs()
    name = f"imagemount-{secrets.token_hex(4)}"
    home = Path("/tmp") / name  # not below pytest's folders, which belong to root alone
    try:
        run(["useradd", "--system", "--no-create-home", "--home-dir", str(home), "--shell", "/bin/sh", name])
    except ProgramFailed as error:  # a root file system that is read-only, as in the lab
        _give_up(f"no user can be made: {error}")
    account = pwd.getpwnam(name)
    user = PlainUser(name, account.pw_uid, account.pw_gid, home, Path("/etc/sudoers.d") / name)
    try:
        home.mkdir(mode=0o700)
        os.chown(home, user.uid, user.gid)
        tried = user.run(sys.executable, "-c", "import pytest, pytest_imagemount, os; print(os.getuid())")
        if tried.stdout.strip() != str(user.uid):
            _give_up(f"no plain user can be given this Python: {tried.stdout.strip() or tried.returncode}")
        user.allow_sudo()
        tried = user.run("sudo", "-n", "true")
        if tried.returncode:
            _give_up(f"sudo cannot be allowed to a plain user: {tried.stdout.strip() or tried.returncode}")
        user.forbid_sudo()
        yield user
    finally:
        user.forbid_sudo()
        run(["userdel", name])
        shutil.rmtree(home, ignore_errors=True)
        # The next user may get the same number.
        for folder in _folders_of(user.uid):
            if folder.exists():
                folder.rmdir()  # not a tree: what is in it was left behind


def _folders_of(uid: int) -> list[Path]:
    """Those that the package makes for a user."""
    return [base_folder() / str(uid), Path(f"/tmp/pytest-imagemount-{uid}")]


def _needed_folders() -> list[Path]:
    package = Path(pytest_imagemount.__file__).parent.parent
    folders = [Path(sys.prefix), Path(sys.base_prefix), CHECKOUT, package, *map(Path, site.getsitepackages())]
    return [path for folder in folders for path in {folder, folder.resolve()}]


def _require_programs() -> None:
    missing = [name for name in ("sudo", "useradd", "unshare") if find_program(name) is None]
    if missing == ["sudo"] and _is_required():
        try:
            run([str(CHECKOUT / "tools/install-packages"), "sudo"], timeout=600)
        except ProgramFailed as error:
            _give_up(f"sudo could not be installed: {error}")
    elif missing:
        _give_up(f"{', '.join(missing)} cannot be found")


def _is_required() -> bool:
    required = os.environ.get("IMAGEMOUNT_REQUIRE", "").split(",")
    return "sudo" in required or required == ["all"]


def _give_up(reason: str) -> NoReturn:
    if _is_required():
        pytest.fail(f"IMAGEMOUNT_REQUIRE names sudo, and {reason}", pytrace=False)
    pytest.skip(reason)
