"""``imagemount lab`` with a real kernel. A boot takes two seconds, so one run of many questions is shared."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import resource
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.engine.undo import wait_until
from pytest_imagemount.errors import LabFailed
from pytest_imagemount.lab import FAILED, TIMED_OUT, run_in_lab
from pytest_imagemount.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.needs("lab")

NOBODY = 65534
ODD_VALUES = {"NEWLINES": "a\nb\n\n", "QUOTES": "'\"`$(true)\\", "NOT_UTF8": os.fsdecode(b"\xff\xfe"), "EMPTY": ""}
MANY = {f"VARIABLE_{number}": "x" * 200 for number in range(500)}
LAB = [sys.executable, "-c", "import sys; from pytest_imagemount.cli import main; sys.exit(main())", "lab"]
PACKAGE = Path(__file__).parents[2]


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for a lab's temporary files. When the test ends nothing may be left in it, and no process of it."""
    folder = Path(tempfile.mkdtemp(prefix="lab-"))
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(PACKAGE))
    yield folder
    try:
        assert wait_until(lambda: not processes_of(folder), 3), processes_of(folder)
        assert wait_until(lambda: not list(folder.iterdir()), 3), list(folder.iterdir())
    finally:
        for pid in processes_of(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder)


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder from which the lab is called."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def processes_of(folder: Path) -> list[int]:
    """Process ids of keepers and kernels that have their private folder in ``folder``; zombies do not count."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if f"{folder}/imagemount-lab-".encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def kernel_of(folder: Path) -> int:
    """Process id of the kernel's first process."""
    return int(next(folder.glob("imagemount-lab-*/lab/pid")).read_text())


def lab(*arguments: str, stdin: bytes | None = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*LAB, *arguments], input=stdin, capture_output=True, timeout=60, check=False, **options)


@contextmanager
def lab_that_waits(work: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A lab whose command has started and does not end by itself."""
    script = "sleep 1000 & while :; do :; done & touch started; wait"
    process = subprocess.Popen(
        [*LAB, *options, "--", "sh", "-c", script], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert wait_until((work / "started").exists, 30)
        yield process
    finally:
        process.kill()
        process.communicate()


ASK = r"""
import errno, json, os, resource, socket, subprocess, sys
def writable(folder):
    try:
        open(folder + "/probe", "w").close()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "yes"
def call(*argv):
    done = subprocess.run(argv, capture_output=True, text=True)
    return [done.returncode, done.stdout, done.stderr]
def lo():
    server = socket.create_server(("127.0.0.1", 0))
    return bool(socket.create_connection(server.getsockname()))
os.mkdir("/tmp/at")
names = ["/", "/usr", "/etc", "/tmp", "/run", "/run/lock", "/var/tmp", "/dev/shm"]
names += [os.environ["READ_WRITE"], os.environ["READ_ONLY"]]
nodes = ["/dev/fuse", "/dev/loop-control", "/dev/mapper/control", "/dev/fd/0"]
facts = {
    "writable": {name: writable(name) for name in names},
    "shown": os.listdir(os.environ["READ_ONLY"]),
    "cwd": os.getcwd(),
    "uid": os.getuid(),
    "environment": {name: os.fsencode(value).hex() for name, value in os.environ.items()},
    "nbds": len([name for name in os.listdir("/sys/block") if name.startswith("nbd")]),
    "devices": [os.path.exists(name) for name in nodes],
    "lo": lo(),
    "terminals": [os.isatty(number) for number in range(3)],
    "modprobe": call("/run/imagemount-lab/modprobe", "-q", "--", "fs-vfat"),
    "no such module": call("/run/imagemount-lab/modprobe", "-q", "--", "nosuch"),
    "vfat": [name for name in open("/proc/modules").read().split("\n") if name.startswith("vfat ")] != [],
    "mount": call("mount", "-o", "loop", "disk.ext4", "/tmp/at"),
    "open files": resource.getrlimit(resource.RLIMIT_NOFILE),
    "umask": os.umask(0),
    "TMPDIR": os.path.isdir(os.environ["TMPDIR"]),
    "memory": int(open("/proc/meminfo").read().split()[1]),
    "overlay": call("mount", "-t", "overlay", "none", "/run/lock", "-o", "lowerdir=/usr:/etc"),
}
subprocess.Popen(["sleep", "1000"])
with open("/tmp/at/written", "w") as file:
    file.write("in the image, which is still mounted when the command ends")
json.dump(facts, open("facts.json", "w"))
sys.exit(7)
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a command in the lab sees, and what its caller has of it."""
    work = tmp_path_factory.mktemp("with blank, comma") / "wörk"
    shared, shown = (tmp_path_factory.mktemp(name) for name in ("shared", "shown"))
    for folder in (work, shared, shown):
        folder.mkdir(exist_ok=True)
    (shown / "here").touch()
    disk = work / "disk.ext4"
    with disk.open("wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", disk], check=True)
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME")},
        **ODD_VALUES,
        **MANY,
        "READ_WRITE": str(shared),
        "READ_ONLY": str(shown),
        "TMPDIR": "/tmp/not/there",
    }
    with (work / "out").open("wb") as output, Path(os.devnull).open("rb") as nothing:
        status = run_in_lab(
            [sys.executable, "-c", ASK],
            cwd=work,
            environment=environment,
            memory="512M",
            timeout=60,
            read_write=[shared],
            read_only=[shown],
            nbds_max=3,
            stdin=nothing.fileno(),
            stdout=output.fileno(),
            stderr=output.fileno(),
        )
    said = (work / "out").read_text()
    assert status == 7, said
    assert said == ""
    facts: dict[str, Any] = json.loads((work / "facts.json").read_text())
    return {**facts, "work": work, "shared": shared, "shown folder": shown, "given": environment}


def test_the_command_runs_as_root_in_the_callers_folder(asked: dict[str, Any]) -> None:
    assert asked["cwd"] == str(asked["work"])
    assert asked["uid"] == 0


def test_only_the_callers_folders_and_scratch_folders_can_be_written(asked: dict[str, Any]) -> None:
    scratch = ("/tmp", "/run", "/run/lock", "/var/tmp", "/dev/shm")
    assert asked["writable"] == {
        **dict.fromkeys(("/", "/usr", "/etc", str(asked["shown folder"])), "EROFS"),
        **dict.fromkeys((*scratch, str(asked["shared"])), "yes"),
    }
    assert (asked["shared"] / "probe").exists()
    assert not Path("/tmp/probe").exists()


def test_a_folder_shown_read_only_has_its_files(asked: dict[str, Any]) -> None:
    assert asked["shown"] == ["here"]


def test_every_variable_arrives_byte_for_byte(asked: dict[str, Any]) -> None:
    given = {name: os.fsencode(value).hex() for name, value in asked["given"].items()}
    assert {name: asked["environment"].get(name) for name in given} == given
    assert bytes.fromhex(asked["environment"]["DM_DISABLE_UDEV"]) == b"1"


def test_limits_umask_and_a_place_for_temporary_files_are_the_callers(asked: dict[str, Any]) -> None:
    assert tuple(asked["open files"]) == resource.getrlimit(resource.RLIMIT_NOFILE)
    assert asked["umask"] == int(Machine.this().status("Umask"), 8)
    assert asked["TMPDIR"] is True


def test_there_are_as_many_nbd_devices_as_asked_for(asked: dict[str, Any]) -> None:
    assert asked["nbds"] == 3


def test_fuse_loop_and_device_mapper_are_there(asked: dict[str, Any]) -> None:
    assert asked["devices"] == [True, True, True, True]


def test_loopback_network_works(asked: dict[str, Any]) -> None:
    assert asked["lo"] is True


def test_streams_that_are_no_terminals_are_none_inside(asked: dict[str, Any]) -> None:
    assert asked["terminals"] == [False, False, False]


def test_a_module_is_loaded_by_its_alias(asked: dict[str, Any]) -> None:
    assert asked["modprobe"] == [0, "", ""]
    assert asked["vfat"] is True


def test_a_module_that_does_not_exist_is_reported_to_the_kernel(asked: dict[str, Any]) -> None:
    assert asked["no such module"][0] == 1


def test_the_kernel_loads_a_module_for_a_file_system_that_is_mounted(asked: dict[str, Any]) -> None:
    assert asked["overlay"] == [0, "", ""]


def test_memory_is_as_asked_for(asked: dict[str, Any]) -> None:
    assert 450_000 < asked["memory"] < 512 * 1024


def test_a_file_system_still_mounted_at_the_end_is_written_back(asked: dict[str, Any]) -> None:
    disk = asked["work"] / "disk.ext4"
    content = subprocess.run(["/sbin/debugfs", "-R", "cat /written", disk], capture_output=True, check=True).stdout
    assert content == b"in the image, which is still mounted when the command ends"
    assert subprocess.run(["/sbin/e2fsck", "-fn", disk], capture_output=True, check=False).returncode == 0


def test_big_binary_output_of_both_streams_is_exact_and_a_signal_is_128_more(scratch: Path, work: Path) -> None:
    first, second = (os.urandom(3_000_000) for _ in range(2))
    (work / "first").write_bytes(first)
    (work / "second").write_bytes(second)
    done = lab("--", "sh", "-c", "cat second >&2 & cat first; wait; kill -KILL $$")
    assert done.returncode == 128 + signal.SIGKILL
    assert done.stdout == first
    assert done.stderr == second


def test_stdin_arrives_whole_with_its_end(scratch: Path, work: Path) -> None:
    given = os.urandom(1_000_000)
    done = lab("--", "cat", stdin=given)
    assert done.returncode == 0, done.stderr
    assert done.stdout == given


def test_a_slow_reader_gets_everything_and_stderr_is_not_held_up(scratch: Path, work: Path) -> None:
    script = "echo early >&2; head -c 1000000 /dev/zero; echo late >&2"
    with subprocess.Popen(
        [*LAB, "--", "sh", "-c", f"({script}) & head -c 300000 /dev/zero >&2; wait"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        errors = b""
        while len(errors) < 300_000:  # nobody reads stdout meanwhile
            errors += process.stderr.read(10_000)
        output = process.stdout.read()
        errors += process.stderr.read()
    assert process.returncode == 0
    assert output == bytes(1_000_000)
    assert errors.replace(b"\0", b"") == b"early\nlate\n"


def test_a_reader_that_leaves_ends_the_command(scratch: Path, work: Path) -> None:
    with subprocess.Popen(
        [*LAB, "--timeout", "30", "--", "yes"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE


def test_output_is_live(scratch: Path, work: Path) -> None:
    with subprocess.Popen(
        [*LAB, "--", "sh", "-c", "echo ready; read answer; echo $answer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.stdin.write(b"yes\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"yes\n"


def test_a_command_that_cannot_be_started_says_why(scratch: Path, work: Path) -> None:
    done = lab("--", "no-such-command")
    assert done.returncode == 127
    assert done.stdout == b""
    assert done.stderr == b"imagemount lab: no-such-command: command not found\n"


def test_the_time_limit_ends_command_and_kernel(scratch: Path, work: Path) -> None:
    done = lab("--timeout", "4", "--", "sh", "-c", "echo working; sleep 1000")
    assert done.returncode == TIMED_OUT
    assert done.stdout == b"working\n"
    assert done.stderr == b"imagemount lab: not done after 4 s; the command and its kernel were killed\n"


def test_the_time_limit_ends_a_kernel_that_hangs(scratch: Path, work: Path) -> None:
    with lab_that_waits(work, "--timeout", "5") as process:
        os.kill(kernel_of(scratch), signal.SIGSTOP)
        assert process.wait(10) == TIMED_OUT


def test_a_panic_is_an_error_that_names_the_console_log(scratch: Path, work: Path) -> None:
    done = lab("--timeout", "30", "--", "sh", "-c", "echo before; sleep 0.2; echo c > /proc/sysrq-trigger; sleep 100")
    assert done.returncode == FAILED
    assert done.stdout == b"before\n"
    (log,) = scratch.glob("imagemount-lab-console-*.log")
    message = done.stderr.decode()
    assert message.startswith("imagemount lab: the lab failed: its kernel ended before the command did")
    assert f"console log: {log}" in message
    assert "Kernel panic - not syncing: sysrq triggered crash" in message
    assert "Kernel panic" in log.read_text()
    log.unlink()


def test_a_first_process_that_cannot_start_is_an_error_with_the_console(
    scratch: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_imagemount.lab.kernel.guest_command", lambda: ["/no/such/python"])
    with pytest.raises(LabFailed, match="its kernel did not come up") as caught:
        run_in_lab(["true"], timeout=30)
    assert "/no/such/python" in caught.value.output
    Path(caught.value.console).unlink()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_caller_ends_everything(scratch: Path, work: Path, number: signal.Signals) -> None:
    with lab_that_waits(work) as process:
        process.send_signal(number)
        assert process.wait(5) == 128 + number
        assert not processes_of(scratch)
        assert not list(scratch.iterdir())


def test_a_killed_caller_leaves_nothing(scratch: Path, work: Path) -> None:
    with lab_that_waits(work) as process:
        assert len(processes_of(scratch)) > 3
        process.kill()
        assert wait_until(lambda: not processes_of(scratch), 2)
        assert wait_until(lambda: not list(scratch.iterdir()), 2)


def test_a_killed_keeper_leaves_nothing(scratch: Path, work: Path) -> None:
    with lab_that_waits(work) as process:
        (keeper,) = (pid for pid in processes_of(scratch) if parent_of(pid) == process.pid)
        os.kill(keeper, signal.SIGKILL)
        assert process.wait(10) == FAILED
        assert not processes_of(scratch)
        for log in scratch.glob("imagemount-lab-console-*.log"):
            log.unlink()


def parent_of(pid: int) -> int:
    """0 where it has just ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return 0


def test_several_labs_run_at_once(scratch: Path, work: Path) -> None:
    script = "echo $0 > /tmp/mine; sleep 0.5; cat /tmp/mine; cat /sys/block/nbd0/size"
    labs = [
        subprocess.Popen(
            [*LAB, "--", "sh", "-c", script, str(number)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        for number in range(2)
    ]
    assert [process.communicate(timeout=60)[0] for process in labs] == [b"0\n0\n", b"1\n0\n"]


@pytest.mark.needs("root")
def test_an_ordinary_user_mounts_an_image_and_owns_what_is_made(scratch: Path) -> None:
    """Run by the machine's own Python: that of the tests may lie where an ordinary user may not look."""
    if not Path("/usr/bin/python3").exists():
        pytest.skip("there is no /usr/bin/python3")
    folder = Path(tempfile.mkdtemp(prefix="user-", dir="/var/tmp"))
    try:
        shutil.copytree(PACKAGE / "pytest_imagemount", folder / "library" / "pytest_imagemount")
        os.chown(folder, NOBODY, NOBODY)
        script = (
            "truncate -s 8M disk && /sbin/mke2fs -q disk && mkdir /tmp/at && mount -o loop disk /tmp/at"
            " && echo inside > /tmp/at/file && cat /tmp/at/file && ls /dev/nbd0 && id -u"
        )
        done = subprocess.run(
            ["/usr/bin/python3", *LAB[1:], "--timeout", "30", "--", "sh", "-c", script],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(folder / "library"), "TMPDIR": str(scratch)},
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == b"inside\n/dev/nbd0\n0\n"
        assert (folder / "disk").stat().st_uid == NOBODY
    finally:
        shutil.rmtree(folder)


class Terminal:
    """A terminal with a lab in it, and what it shows."""

    def __init__(self, *command: str, rows: int, columns: int) -> None:
        self.pid, self._fd = pty.fork()
        if not self.pid:
            os.execv(LAB[0], [*LAB, "--timeout", "40", "--", *command])
        self.resize(rows, columns)
        self.shown = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def read_until(self, wanted: bytes) -> None:
        deadline = time.monotonic() + 20
        while wanted not in self.shown:
            assert select.select([self._fd], [], [], deadline - time.monotonic())[0], self.shown
            self.shown += os.read(self._fd, 4096)

    def end(self) -> int:
        """Its exit status, once it has closed the terminal."""
        with suppress(OSError):  # EIO: closed
            while data := os.read(self._fd, 4096):
                self.shown += data
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_on_a_terminal_the_command_has_a_terminal(scratch: Path, work: Path) -> None:
    script = (
        "stty size; tty; read line; echo got $line; trap 'stty size' WINCH; trap 'echo interrupted; exit 9' INT;"
        " echo waiting; while :; do sleep 0.1; done"
    )
    terminal = Terminal("sh", "-c", script, rows=33, columns=101)
    terminal.read_until(b"/dev/pts/0\r\n")
    assert terminal.shown == b"33 101\r\n/dev/pts/0\r\n"
    terminal.type(b"hellp\x7fo\r")
    terminal.read_until(b"got hello\r\nwaiting\r\n")
    terminal.resize(20, 70)
    terminal.read_until(b"20 70\r\n")
    terminal.type(b"\x03")
    terminal.read_until(b"interrupted\r\n")
    assert terminal.end() == 9


def test_ctrl_c_ends_a_kernel_that_hangs(scratch: Path, work: Path) -> None:
    terminal = Terminal("sh", "-c", "echo ready; cat", rows=24, columns=80)
    terminal.read_until(b"ready\r\n")
    os.kill(kernel_of(scratch), signal.SIGSTOP)
    terminal.type(b"\x03")
    time.sleep(2.2)  # as long as a kernel that is only slow may take
    terminal.type(b"\x03")
    assert terminal.end() == 128 + signal.SIGINT
