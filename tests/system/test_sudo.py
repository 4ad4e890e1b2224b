"""A plain user, with ``sudo -n`` and without: what works, what does not, and who else gets to see the image."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_imagemount import File, Symlink, build_image
from pytest_imagemount.engine.folders import base_folder
from pytest_imagemount.engine.undo import wait_until
from tests.leaks import loops

from .plain_user import CHECKOUT, PlainUser, plain_user

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_imagemount.plugin import MountFactory

pytestmark = pytest.mark.needs("root", "loop", "ext4", "mke2fs")

CONTENT: dict[str, str | File | Symlink] = {
    "etc/hostname": "web01\n",
    "etc/shadow": File(b"root:secret\n", mode=0o600, uid=0, gid=0),
    "closed/key": File(b"key", mode=0o600, uid=0, gid=0),
    "link": Symlink("/etc/shadow"),
}
HOLD = """
import sys, time
from pytest_imagemount import mount_image
with mount_image(sys.argv[1], mode=sys.argv[2]) as image:
    print(image.root, flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def user() -> Iterator[PlainUser]:
    """May use sudo at the start of each test."""
    with plain_user() as made:
        yield made


@pytest.fixture(scope="module")
def stranger() -> Iterator[PlainUser]:
    """Another user of the machine."""
    with plain_user() as made:
        yield made


@pytest.fixture(autouse=True)
def sudo_is_allowed_and_nothing_is_left(user: PlainUser) -> Iterator[None]:
    user.allow_sudo()
    yield
    wait_until(lambda: left_of(user) == [], 2)
    assert left_of(user) == []


def left_of(user: PlainUser) -> list[str]:
    """Loop devices on images of the user's, and folders of the user's helpers."""
    devices = [line for line in loops() if str(user.home) in line or f":{user.name}" in line]
    return devices + [str(path) for path in (base_folder() / str(user.uid)).glob("*")]


@pytest.fixture
def disk(user: PlainUser, mounted_image: MountFactory) -> Path:
    """A raw image of the user's, in which only root may enter one folder and read two files."""
    path = build_image(user.home / f"{user.name}.raw", fstype="ext4", content=CONTENT)
    with mounted_image(path, mode="rw") as image:
        (image / "closed").chmod(0o700)
    os.chown(path, user.uid, user.gid)
    return path


def copy_of(folder: Path, user: PlainUser) -> Path:
    """A copy of ``folder`` that belongs to the user."""
    copy = user.home / folder.name
    shutil.copytree(folder, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "images"))
    for path in [copy, *copy.rglob("*")]:
        os.chown(path, user.uid, user.gid)
    return copy


@pytest.mark.needs("fuse", "qemu-img", "mksquashfs", "squashfs")
def test_the_examples_pass(user: PlainUser) -> None:
    examples = copy_of(CHECKOUT / "examples", user)
    built = user.run(sys.executable, "build_images.py", cwd=examples)
    assert built.returncode == 0, built.stdout
    done = user.run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs", cwd=examples)
    assert done.returncode == 0, done.stdout
    assert ", 1 skipped" in done.stdout, done.stdout


@pytest.mark.parametrize(
    "tests", ["test_mounted_image.py", "test_mounted_system.py", "test_teardown.py", "test_many_workers.py"]
)
def test_the_system_tests_pass(user: PlainUser, tests: str) -> None:
    copy_of(CHECKOUT / "tests", user)
    shutil.copy(CHECKOUT / "pyproject.toml", user.home)
    done = user.run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", f"tests/system/{tests}")
    assert done.returncode == 0, done.stdout
    assert "needs privileged" not in done.stdout
    assert " passed" in done.stdout


def test_files_that_only_root_may_read_are_read(user: PlainUser, disk: Path) -> None:
    code = """
import os, sys
from pytest_imagemount import mount_image
with mount_image(sys.argv[1]) as image:
    assert os.geteuid() != 0
    for path in (image.root / "etc/shadow", image.root / "closed/key"):
        try:
            path.read_text()
        except PermissionError:
            continue
        raise SystemExit(f"{path} is readable by itself: the test shows nothing")
    assert (image / "etc/shadow").read_text() == "root:secret\\n"
    assert (image / "link").read_text() == "root:secret\\n"
    assert (image / "closed/key").sha256()
    assert [entry.name for entry in (image / "closed").iterdir()] == ["key"]
    assert (image / "closed/key").stat().st_uid == 0
    assert not (image / "closed/none").exists()
    assert [str(path) for path in image.__truediv__("").rglob("k*")] == ["/closed/key"]
    try:
        (image / "closed/key").write_text("x")
    except OSError as error:
        print(error.errno, error.filename)
"""
    assert user.python(code, disk) == f"30 {disk.name}:/closed/key"


@pytest.mark.parametrize("mode", ["overlay", "rw"])
@pytest.mark.needs("fuse")
def test_an_image_is_written_to_as_root_would(user: PlainUser, disk: Path, mode: str) -> None:
    code = """
import os, sys
from pytest_imagemount import mount_image
os.umask(0o027)
with mount_image(sys.argv[1], mode=sys.argv[2]) as image:
    closed = image / "closed"
    (closed / "new").write_text("new")
    (closed / "new").open("a").write("er")
    assert (closed / "new").read_text() == "newer"
    assert (closed / "new").stat().st_mode & 0o7777 == 0o640
    assert (closed / "new").stat().st_uid == 0
    (closed / "deep/er").mkdir(parents=True)
    assert (closed / "deep").stat().st_mode & 0o7777 == 0o750
    (closed / "deep/er").rmdir()
    (closed / "new").rename(closed / "deep/old")
    (closed / "deep/old").chmod((closed / "deep/old").stat().st_mode | 0o111)
    assert (closed / "deep/old").stat().st_mode & 0o7777 == 0o751
    (closed / "key").touch()
    assert (closed / "key").stat().st_mtime > 1_700_000_000
    (closed / "fresh").touch(mode=0o600)
    (closed / "way").symlink_to("/etc/hostname")
    assert (closed / "way").read_text() == "web01\\n"
    (closed / "way").write_text("web02\\n")
    assert (image / "etc/hostname").read_text() == "web02\\n"
    (closed / "dangling").symlink_to("../etc/made")
    (closed / "dangling").write_text("made")
    assert (image / "etc/made").read_text() == "made"
    (closed / "key").unlink()
    assert sorted(entry.name for entry in closed.iterdir()) == ["dangling", "deep", "fresh", "way"]
with mount_image(sys.argv[1]) as image:
    print((image / "etc/hostname").read_text(), (image / "closed/key").exists())
"""
    assert user.python(code, disk, mode) == ("web01\n True" if mode == "overlay" else "web02\n False")


def test_another_user_reads_nothing_through_the_mount(user: PlainUser, stranger: PlainUser, disk: Path) -> None:
    with user.start(HOLD, disk, "ro") as holder:
        try:
            assert holder.stdout is not None
            root = Path(holder.stdout.readline().strip())
            inside = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "setpriv", "--clear-groups"]
            for who, expected in ((user, "web01\n"), (stranger, None)):
                ids = [f"--reuid={who.uid}", f"--regid={who.gid}"]
                read = subprocess.run([*inside, *ids, "cat", root / "etc/hostname"], capture_output=True, text=True)
                assert (read.stdout or None) == expected
                assert ("Permission denied" in read.stderr) is (expected is None)
        finally:
            holder.kill()


def test_the_mounts_are_gone_when_the_test_process_is_killed(user: PlainUser, disk: Path) -> None:
    with user.start(HOLD, disk, "rw") as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().startswith("/run/")
        assert len(left_of(user)) == 2
        holder.kill()
    assert wait_until(lambda: left_of(user) == [], 2)


def test_an_image_that_the_user_may_not_read_is_not_mounted(user: PlainUser, disk: Path) -> None:
    os.chown(disk, 0, 0)
    disk.chmod(0o600)
    code = """
import os, sys
from pytest_imagemount import mount_image
from pytest_imagemount.client import Client
from pytest_imagemount.config import Settings
from pytest_imagemount.errors import ImageUnreadable, RequestInvalid
from pytest_imagemount.helper.protocol import Open
try:
    with mount_image(sys.argv[1]):
        raise SystemExit("mounted")
except ImageUnreadable:
    pass
client = Client(Settings())
def request(mode="ro"):
    return Open(client.new_mount(), "d", sys.argv[1], None, "raw", mode, backend="loop")
# A name of the file, without the right to read it: by it root would open the file.
for fd in (os.open(sys.argv[1], os.O_PATH), os.open("/dev/null", os.O_WRONLY), os.open("/dev/zero", os.O_RDONLY)):
    try:
        client.ask(request(), (fd,))
        raise SystemExit("mounted")
    except ValueError as error:
        print(type(error).__name__)
# The right to read is not the right to write.
readable = os.open("/etc/passwd", os.O_RDONLY)
try:
    client.ask(request("rw"), (readable,))
    raise SystemExit("mounted")
except RequestInvalid as error:
    print(type(error).__name__)
client.close()
"""
    assert user.python(code, disk).split() == ["RequestInvalid", "RequestInvalid", "ImageInvalid", "RequestInvalid"]


@pytest.mark.needs("qemu", "fuse")
def test_an_image_that_root_may_not_look_at_says_so(user: PlainUser, disk: Path) -> None:
    code = """
import subprocess, sys, time
from pathlib import Path
from pytest_imagemount import mount_image
from pytest_imagemount.errors import ImageUnreadable
export = Path("export")
export.touch()
daemon = subprocess.Popen([
    "qemu-storage-daemon",
    "--blockdev", f"driver=file,node-name=disk,filename={sys.argv[1]},read-only=on",
    "--export", "type=fuse,id=export,node-name=disk,mountpoint=export,allow-other=off",
])
try:
    while not export.stat().st_size:
        time.sleep(0.01)
    with mount_image(export):
        raise SystemExit("mounted")
except ImageUnreadable as error:
    print(error.reason, error.hint)
finally:
    daemon.terminate()
    daemon.wait()
"""
    told = user.python(code, disk)
    assert "FUSE" in told
    assert "allow_root" in told


def test_a_folder_of_another_user_is_no_mount_point(user: PlainUser, disk: Path) -> None:
    own = user.home / "own"
    own.mkdir(exist_ok=True)
    os.chown(own, user.uid, user.gid)
    code = """
import os, sys
from pytest_imagemount import mount_image
from pytest_imagemount.client import Client
from pytest_imagemount.config import Settings
from pytest_imagemount.errors import RequestInvalid
from pytest_imagemount.helper.protocol import Open
with mount_image(sys.argv[1], mountpoint=sys.argv[2]) as image:
    assert str(image.root) == sys.argv[2]
    assert (image / "closed/key").read_text() == "key"
client = Client(Settings())
request = Open(client.new_mount(), "d", sys.argv[1], None, "raw", backend="loop", carries=("image", "mountpoint"))
try:
    client.ask(request, (os.open(sys.argv[1], os.O_RDONLY), os.open("/mnt", os.O_RDONLY)))
    raise SystemExit("mounted")
except RequestInvalid as error:
    print(error.argument)
client.close()
"""
    assert user.python(code, disk, own) == "mountpoint"


@pytest.mark.parametrize(
    ("fstype", "options"), [("overlay", "lowerdir=root"), ("ext4", "journal_path=/dev/vda"), ("proc", "")]
)
def test_no_file_of_the_machine_comes_in_by_options(user: PlainUser, disk: Path, fstype: str, options: str) -> None:
    code = """
import sys
from pytest_imagemount import mount_image
from pytest_imagemount.errors import RequestInvalid
try:
    with mount_image(sys.argv[1], fstype=sys.argv[2], options=sys.argv[3]):
        raise SystemExit("mounted")
except RequestInvalid as error:
    print(error.argument)
"""
    assert user.python(code, disk, fstype, options) in ("fstype", "options")


ONE_TEST = """
def test_it(mounted_image):
    with mounted_image({disk!r}) as image:
        assert (image / "etc/shadow").read_text() == "root:secret\\n"
"""


@pytest.fixture
def one_test(user: PlainUser, disk: Path) -> Path:
    """A test of the user's that mounts ``disk``."""
    return user.own(user.home / "test_one.py", ONE_TEST.format(disk=str(disk)).encode())


def run_pytest(user: PlainUser, *arguments: str | Path) -> str:
    return user.run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments).stdout


def test_with_neither_root_nor_sudo_one_error_says_what_the_choices_are(user: PlainUser, one_test: Path) -> None:
    user.forbid_sudo()
    output = run_pytest(user, "-rf", "--tb=line", one_test)
    assert "1 failed" in output
    found = next(line for line in output.splitlines() if "CapabilityMissing: " in line)
    line = found.partition("CapabilityMissing: ")[2]
    assert line.startswith(f"root is not available here: the user is {user.uid}, and sudo refuses: a password is")
    for choice in ("run as root", "sudo -n", f"{user.name} ALL=(root) NOPASSWD: ALL", "imagemount lab"):
        assert choice in line


def test_sudo_can_be_switched_off(user: PlainUser, one_test: Path) -> None:
    output = run_pytest(user, "--imagemount-sudo=never", one_test)
    assert "imagemount_sudo=never forbids sudo" in output
    output = run_pytest(user, "--imagemount-sudo=never", "--imagemount-unavailable=skip", one_test)
    assert "1 skipped" in output


def test_a_sudo_that_wants_a_terminal_is_named(user: PlainUser, one_test: Path) -> None:
    user.allow_sudo("requiretty")
    output = run_pytest(user, one_test)
    assert "you must have a tty" in output
    assert f"Defaults:{user.name} !requiretty" in output


class Terminal:
    """A program of a user's on a terminal of its own."""

    def __init__(self, argv: list[str], cwd: Path) -> None:
        self.pid, self._fd = pty.fork()
        if not self.pid:
            os.chdir(cwd)
            os.execvp(argv[0], argv)
        self.output = ""

    def read_until(self, text: str) -> None:
        """Read until ``text`` has come, or the end where it is empty."""
        while not text or text not in self.output:
            with suppress(OSError):  # EIO: nobody has the other end open any more
                if data := os.read(self._fd, 4096):
                    self.output += data.decode(errors="replace")
                    continue
            assert not text, self.output
            return

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def end(self) -> int:
        """The exit status, once all is read."""
        self.read_until("")
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.parametrize("settings", [(), ("requiretty",), ("use_pty",), ("!use_pty",), ("use_pty", "requiretty")])
def test_on_a_terminal_ctrl_c_reaches_the_tests_alone(user: PlainUser, disk: Path, settings: tuple[str, ...]) -> None:
    user.allow_sudo(*settings)
    code = f"""
import time

def test_it(mounted_image):
    with mounted_image({str(disk)!r}) as image:
        try:
            print("mounted", flush=True)
            time.sleep(600)
        finally:
            assert (image / "etc/shadow").read_text() == "root:secret\\n"
            print("still mounted", flush=True)
"""
    test = user.own(user.home / "test_terminal.py", code.encode())
    argv = user.argv(sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", test)
    terminal = Terminal(argv, user.home)
    try:
        terminal.read_until("mounted")
        assert len(left_of(user)) == 2
        terminal.type("\x03")
        terminal.read_until("still mounted")
        assert terminal.end() == pytest.ExitCode.INTERRUPTED
    finally:
        with suppress(ProcessLookupError):
            os.kill(terminal.pid, signal.SIGKILL)
    assert "KeyboardInterrupt" in terminal.output
    assert wait_until(lambda: left_of(user) == [], 2)
