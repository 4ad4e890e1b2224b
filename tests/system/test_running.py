"""Commands of an image: what they give, what they cannot do, and that nothing of them stays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount import File, MountedImage
from pytest_imagemount.config import Settings
from pytest_imagemount.engine.mountinfo import mounts
from pytest_imagemount.engine.undo import wait_until
from pytest_imagemount.errors import (
    CommandFailed,
    CommandNotAllowed,
    CommandTimeout,
    ImageUnmounted,
    RequestInvalid,
)
from pytest_imagemount.pending import LIVE
from pytest_imagemount.session import MountSession
from tests.leaks import loops

from .busybox import EMPTY, busybox_system, shell
from .plain_user import plain_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_imagemount.plugin import MountFactory

    from .test_mounted_image import ImageBuilder

pytestmark = pytest.mark.needs("privileged", "loop", "ext4", "mke2fs")

LAUNCHER = b"pytest_imagemount.helper.run_inside"
SECONDS = str(80_000_000 + os.getpid())
"""How long what never ends sleeps: a number by which its processes are found, and not those of another run."""


@pytest.fixture(scope="module")
def session() -> Iterator[MountSession]:
    """Mounts images whose commands may be run."""
    with MountSession(Settings(run="allow"), test="test_running") as made:
        yield made


@pytest.fixture(scope="module")
def disk(image_factory: ImageBuilder) -> Path:
    return image_factory(fstype="ext4", content=busybox_system(*EMPTY))


@pytest.fixture(scope="module")
def image(session: MountSession, disk: Path) -> Iterator[MountedImage]:
    with session.mount(disk) as mounted:
        yield mounted


def nothing_runs() -> bool:
    """Whether this process's helper has no process of its own any more that runs a command."""
    folder = Path(f"/proc/{LIVE.helper}/task/{LIVE.helper}")
    children = [Path(f"/proc/{pid}") for pid in (folder / "children").read_text().split()]
    return not any(LAUNCHER in _command_line(child) for child in children)


def alive(mark: str) -> list[str]:
    """Processes of the machine that have ``mark`` on their command lines."""
    return [
        entry.name
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and mark.encode() in _command_line(entry) and int(entry.name) != os.getpid()
    ]


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_path_of_the_image_is_an_argument(image: MountedImage) -> None:
    assert image.run([image / "bin/cat", image / "etc/hostname"]).stdout == "web01\n"


def test_input_reaches_the_command_and_much_output_comes_back(image: MountedImage) -> None:
    data = os.urandom(3 << 20)
    assert image.run(["cat"], input=data).stdout_bytes == data
    assert image.run(["cat"], input="ä\udcff").stdout_bytes == b"\xc3\xa4\xff"
    assert image.run(["cat"]).stdout == ""
    # It need not read it.
    assert image.run(["true"], input=data).returncode == 0


def test_the_environment_is_small_and_the_callers_is_not_in_it(
    image: MountedImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "of the machine")
    lines = set(shell(image, "env", env={"COLOUR": "red", "LC_ALL": "C"}).split("\n"))
    assert {"COLOUR=red", "LC_ALL=C", "HOME=/root", "TERM=dumb"} <= lines
    names = {line.partition("=")[0] for line in lines}
    assert names <= {"", "COLOUR", "LC_ALL", "HOME", "TERM", "SYSTEMD_OFFLINE", "PATH", "PWD", "SHLVL", "OLDPWD", "_"}


def test_a_user_that_the_image_does_not_have_is_refused(image: MountedImage) -> None:
    with pytest.raises(RequestInvalid, match=r"user='nobody': /etc/passwd of the image has no user of that name"):
        image.run(["id"], user="nobody")
    assert image.run(["id", "-u"], user=4711).stdout == "4711\n"


def test_a_command_starts_in_the_folder_that_was_asked_for(image: MountedImage) -> None:
    assert image.run(["readlink", "/proc/self/cwd"], cwd="/var/www").stdout == "/var/www\n"
    with pytest.raises(CommandFailed, match="enter /none: No such file or directory"):
        image.run(["true"], cwd="/none")


def test_a_signal_is_named(image: MountedImage) -> None:
    done = image.run(["sh", "-c", "kill -SEGV $$"])
    assert (done.returncode, done.signal) == (-signal.SIGSEGV, "SIGSEGV")
    assert "ended by SIGSEGV" in repr(done)


def test_with_check_a_bad_end_is_an_error(image: MountedImage) -> None:
    with pytest.raises(CommandFailed) as caught:
        image.run(["sh", "-c", "echo so far; echo no such thing >&2; exit 4"], check=True)
    assert caught.value.returncode == 4
    assert str(caught.value).startswith(f"image '{image.source.name}': sh -c ")
    assert str(caught.value).endswith(": exit status 4\nno such thing")


def test_its_root_is_no_user_of_this_machine(image: MountedImage) -> None:
    assert shell(image, "cat /proc/self/uid_map").split() == ["0", str(1 << 30), str(1 << 29)]


def test_it_inherits_no_descriptor(image: MountedImage) -> None:
    assert shell(image, "exec ls /proc/self/fd").split() == ["0", "1", "2", "3"]  # 3 is that of ls


def test_it_has_no_network_unless_it_is_given(image: MountedImage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = ["nc", "-w", "2", "127.0.0.1", str(server.getsockname()[1])]
        done = image.run(reach, timeout=10)
        assert done.returncode != 0
        assert "Network is unreachable" in done.stderr
        assert image.run(["ls", "/sys/class/net"]).returncode != 0

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"hello")

        thread = threading.Thread(target=answer)
        thread.start()
        assert image.run(reach, network=True).stdout == "hello"
        thread.join()


def test_none_of_its_namespaces_is_this_machines(image: MountedImage) -> None:
    kinds = ("mnt", "pid", "net", "ipc", "uts", "cgroup", "user")
    lines = shell(image, f"hostname; for kind in {' '.join(kinds)}; do readlink /proc/self/ns/$kind; done").split()
    assert lines.pop(0) == "image"
    for kind, line in zip(kinds, lines, strict=True):
        here = str(Path(f"/proc/self/ns/{kind}").readlink())
        assert line.startswith(f"{kind}:[")
        assert line != here


def test_folders_that_the_image_lacks_are_not_made(session: MountSession, image_factory: ImageBuilder) -> None:
    with session.mount(image_factory(fstype="ext4", content=busybox_system())) as bare:
        assert set(shell(bare, "ls /").split()) == {"bin", "etc", "lost+found", "var"}


def test_the_mount_points_may_be_links(session: MountSession, image_factory: ImageBuilder) -> None:
    from pytest_imagemount import Symlink

    content = {**busybox_system("proc"), "tmp": Symlink("/"), "dev": Symlink("bin"), "run": Symlink("/proc/1/root")}
    with session.mount(image_factory(fstype="ext4", content=content)) as odd:
        assert "busybox" in shell(odd, "ls /dev/")


@pytest.mark.needs("fuse")
def test_in_overlay_mode_it_may_write_when_it_is_told_so(session: MountSession, disk: Path) -> None:
    before = disk.read_bytes()
    with session.mount(disk, mode="overlay") as image:
        assert image.run(["touch", "/etc/new"]).returncode != 0
        shell(image, "echo made >/etc/new; mkdir /var/own; touch /var/own/file", writable=True)
        assert (image / "etc/new").read_text() == "made\n"
        assert (image / "var/own").stat().st_uid == 0
        assert image.run(["touch", "/var/own/file"], user="www", writable=True).returncode != 0
    assert disk.read_bytes() == before


def test_what_is_mounted_read_only_is_not_written_to(image: MountedImage) -> None:
    with pytest.raises(RequestInvalid, match="mode='overlay'"):
        image.run(["touch", "/x"], writable=True)


def test_what_it_leaves_running_ends_with_it(image: MountedImage) -> None:
    shell(image, "setsid sleep $SECONDS & (sleep $SECONDS &) ; sleep 0.05", env={"SECONDS": SECONDS})
    assert alive(SECONDS) == []


@pytest.mark.parametrize(
    "script", ["sleep $SECONDS", "setsid sleep $SECONDS & sleep $SECONDS", "trap '' TERM INT HUP; sleep $SECONDS"]
)
def test_after_the_time_limit_all_of_it_is_gone(session: MountSession, disk: Path, script: str) -> None:
    with session.mount(disk) as image:
        start = time.monotonic()
        image.run(["true"])
        enough = 0.5 + 3 * (time.monotonic() - start)  # to start, however busy the machine
        with pytest.raises(CommandTimeout, match=r"not over after .* s, and ended; raise timeout=\nbegun") as caught:
            image.run(["sh", "-c", f"echo begun; {script}"], timeout=enough, env={"SECONDS": SECONDS})
        assert time.monotonic() - start < 2 * enough + 3
        assert caught.value.argv[0] == "sh"
        assert alive(SECONDS) == []
        assert wait_until(nothing_runs, 2)
    assert not any(str(entry.target) == str(image.root) for entry in mounts())


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_time_limit_is_a_number_above_0(image: MountedImage, timeout: float) -> None:
    with pytest.raises(RequestInvalid, match="timeout="):
        image.run(["true"], timeout=timeout)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output_is_an_error(image: MountedImage, stream: str) -> None:
    with pytest.raises(CommandFailed, match=f"more than 16 MiB to {stream}"):
        image.run(["sh", "-c", "exec yes" + (" >&2" if stream == "stderr" else "")], timeout=60)
    assert wait_until(nothing_runs, 2)


def test_a_large_file_and_many_processes_have_a_limit(image: MountedImage) -> None:
    limits = shell(image, "cat /proc/self/limits")
    found = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()}
    assert (found["Max core file size"], found["Max file size"]) == ("0", str(1 << 30))
    assert (found["Max processes"], found["Max data size"]) == ("1024", str(4 << 30))


class Sleeper(threading.Thread):
    """Runs a command that does not end by itself; ``reasons`` holds the error's when it was ended."""

    def __init__(self, image: MountedImage) -> None:
        super().__init__()
        self.reasons: list[str] = []
        self._image = image
        self.start()
        assert wait_until(lambda: alive(SECONDS) != [], 10)

    def run(self) -> None:
        try:
            self._image.run(["sleep", SECONDS])
        except CommandFailed as error:
            self.reasons.append(error.reason)


def test_an_unmount_ends_what_runs_first(session: MountSession, disk: Path) -> None:
    with session.mount(disk) as image:
        sleeper = Sleeper(image)
        image.unmount()
        sleeper.join(10)
    assert sleeper.reasons == ["it was ended before its time"]
    assert alive(SECONDS) == []
    with pytest.raises(ImageUnmounted):
        image.run(["true"])


@pytest.mark.parametrize(
    "second", ["ext4", pytest.param("squashfs", marks=pytest.mark.needs("squashfs", "mksquashfs"))]
)
def test_a_system_is_seen_whole(session: MountSession, image_factory: ImageBuilder, second: str) -> None:
    fstab = "/dev/sda1 / ext4 defaults 0 1\nPARTLABEL=data /srv/data auto defaults 0 2\n"
    disk = image_factory(
        table="gpt",
        partitions=[
            {
                "fstype": "ext4",
                "name": "root",
                "type": "root-x86-64",
                "content": {**busybox_system(*EMPTY, "srv/data"), "etc/fstab": fstab},
            },
            {"fstype": second, "name": "data", "content": {"deep/file": "on the other partition\n"}},
        ],
    )
    with session.mount_system(disk) as system:
        assert shell(system, "cat /srv/data/deep/file") == "on the other partition\n"
        assert "Read-only" in system.run(["touch", "/srv/data/new"]).stderr
        sleeper = Sleeper(system)
        system.unmount()
        sleeper.join(10)
    assert sleeper.reasons == ["it was ended before its time"]
    assert alive(SECONDS) == []


def test_threads_run_commands_at_once(image: MountedImage) -> None:
    results: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: image.run(["cat"], input=f"{n}").stdout}))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: str(n) for n in range(4)}


HOLDER = """
import os, sys
from pytest_imagemount import mount_image
with mount_image(sys.argv[1]) as image:
    seconds = os.environ["SECONDS"]
    image.run(["sh", "-c", f"(setsid sleep {seconds} &); sleep {seconds}"], timeout=600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_the_test_process(disk: Path, number: signal.Signals) -> None:
    before = [line for line in loops() if str(disk) in line]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, disk],
        env={**os.environ, "IMAGEMOUNT_RUN": "allow", "SECONDS": SECONDS},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as holder:
        try:
            assert wait_until(lambda: len(alive(SECONDS)) >= 2, 20)
        finally:
            holder.send_signal(number)
    assert wait_until(lambda: alive(SECONDS) == [], 5)
    assert wait_until(lambda: [line for line in loops() if str(disk) in line] == before, 5)


@pytest.mark.parametrize("victim", ["helper", "outer", "first"])
def test_it_ends_with_each_of_the_processes_that_hold_it(disk: Path, victim: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, disk],
        env={**os.environ, "IMAGEMOUNT_RUN": "allow", "SECONDS": SECONDS},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert wait_until(lambda: len(alive(SECONDS)) >= 2, 20)
            os.kill(_process(holder.pid, victim), signal.SIGKILL)
            assert wait_until(lambda: alive(SECONDS) == [], 5)
            _, errors = holder.communicate(timeout=20)
        finally:
            holder.kill()
    assert "it was ended before its time" in errors
    if victim == "helper":  # what it had mounted is for the next run to reclaim
        subprocess.run([sys.executable, "-m", "pytest_imagemount.cli", "clean"], check=True, stdout=subprocess.DEVNULL)


def _process(holder: int, victim: str) -> int:
    """The helper of ``holder``, or of the launcher that it started the outer process or its child, the first inside."""
    chain = ["helper", "outer", "first"]
    pid = holder
    for _ in chain[: chain.index(victim) + 1]:
        (child,) = [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        pid = child
    return pid


def test_what_is_not_there_is_named(image: MountedImage) -> None:
    with pytest.raises(CommandFailed, match=r"busybox|the image has no /bin/none; give the full path"):
        image.run(["/bin/none"])
    with pytest.raises(CommandFailed, match=r"none of the folders /usr/local/sbin, .*, /bin; give its full path"):
        image.run(["none"])


def elf(machine: int) -> bytes:
    """The header of a 64-bit little-endian program."""
    return b"\x7fELF\x02\x01\x01" + bytes(9) + (2).to_bytes(2, "little") + machine.to_bytes(2, "little") + bytes(100)


BROKEN: list[tuple[str, bytes, int, str]] = [
    (
        "arm",
        elf(183),
        0o755,
        "is a program for aarch64, and this machine is .*qemu-user-static and binfmt-support.*flag F",
    ),
    ("script", b"#!/usr/bin/perl -w\n", 0o755, "needs /usr/bin/perl, which the image does not have"),
    ("text", b"echo hello\n", 0o755, r"is neither a program for .* nor a script with '#!'; run it by its interpreter"),
    ("closed", b"#!/bin/sh\n", 0o644, "is not executable"),
]


@pytest.fixture(scope="module")
def broken_image(session: MountSession, image_factory: ImageBuilder) -> Iterator[MountedImage]:
    programs = {f"opt/{name}": File(content, mode=mode, uid=0, gid=0) for name, content, mode, _ in BROKEN}
    dynamic = File(Path("/usr/bin/env").read_bytes(), mode=0o755, uid=0, gid=0)
    with session.mount(
        image_factory(fstype="ext4", content={**busybox_system(*EMPTY), **programs, "opt/dynamic": dynamic})
    ) as mounted:
        yield mounted


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, _, _, reason in BROKEN])
def test_what_cannot_be_run_says_why(broken_image: MountedImage, name: str, reason: str) -> None:
    with pytest.raises(CommandFailed, match=f"/opt/{name} {reason}"):
        broken_image.run([f"/opt/{name}"])


def test_a_program_whose_loader_is_missing_names_it(broken_image: MountedImage) -> None:
    with pytest.raises(CommandFailed, match=r"/opt/dynamic needs /lib\S*/ld-\S+, which the image does not have"):
        broken_image.run(["/opt/dynamic"])


@pytest.mark.parametrize("argv", ["/bin/ls", b"/bin/ls", [], Path("/bin/ls")])
def test_a_command_is_a_list(image: MountedImage, argv: Any) -> None:
    with pytest.raises(RequestInvalid, match="must be a list"):
        image.run(argv)


@pytest.mark.parametrize(
    ("argv", "env", "message"),
    [
        ([""], {}, "argv=.*: the name of the command is empty"),
        (
            ["echo", "x" * 200_000],
            {},
            r"argv=2 words: with env= it is longer than .* bytes; give what is long by input=",
        ),
        (["env"], {"": "x"}, "env={'': 'x'}: must be a name without '='"),
        (["env"], {"A=B": "x"}, "env={'A=B': 'x'}: must be a name without '='"),
        (["env"], {"A": None}, "env={'A': None}: must be a name without '=', and a text"),
    ],
)
def test_what_no_command_can_be_started_with_is_told(
    image: MountedImage, argv: list[str], env: Any, message: str
) -> None:
    with pytest.raises(RequestInvalid, match=message):
        image.run(argv, env=env)


def test_without_being_allowed_nothing_is_run(disk: Path, mounted_image: MountFactory) -> None:
    with mounted_image(disk) as image:
        with pytest.raises(CommandNotAllowed, match="--imagemount-run=allow") as caught:
            image.run(["/bin/ls", "/etc"])
        assert isinstance(caught.value, PermissionError)
    assert wait_until(nothing_runs, 2)


def test_an_option_allows_it(pytester: pytest.Pytester, disk: Path) -> None:
    pytester.makepyfile(
        f"""
        def test_it(mounted_image):
            with mounted_image({str(disk)!r}) as image:
                assert image.run(["cat", "/etc/hostname"]).stdout == "web01\\n"
        """
    )
    pytester.runpytest_subprocess("--imagemount-run=allow").assert_outcomes(passed=1)


@pytest.mark.needs("root")
def test_a_plain_user_runs_commands_by_sudo(disk: Path, image_factory: Callable[..., Path]) -> None:
    code = """
import os, sys
os.environ["IMAGEMOUNT_RUN"] = "allow"
from pytest_imagemount import mount_image
assert os.geteuid() != 0
with mount_image(sys.argv[1]) as image:
    print(image.run(["cat", "/etc/secret"], check=True).stdout.strip())
    print(image.run(["id", "-u"], user="www").stdout.strip())
    try:
        image.run(["sleep", sys.argv[2]], timeout=0.5)
    except TimeoutError:
        print("ended")
"""
    with plain_user() as user:
        user.allow_sudo()
        own = user.own(user.home / "own.raw", disk.read_bytes())
        assert user.python(code, own, SECONDS).split("\n") == ["only for root", "33", "ended"]
    assert alive(SECONDS) == []
