"""Running commands of an image: what needs no kernel."""

from __future__ import annotations

import errno
import json
import os
import signal
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_imagemount.config import Settings
from pytest_imagemount.errors import CommandFailed, CommandNotAllowed, RequestInvalid
from pytest_imagemount.helper.protocol import Run, decode_request, encode_request
from pytest_imagemount.helper.run_inside import Job
from pytest_imagemount.helper.runs import _job
from pytest_imagemount.mounted_image import MountedImage
from pytest_imagemount.running.account import Account, account_of
from pytest_imagemount.running.command import Command, Outcome
from pytest_imagemount.running.completed import Completed
from pytest_imagemount.running.refusals import _elf_interpreter, why_not_run

from .trees import facts_of

if TYPE_CHECKING:
    from pytest_imagemount.image_path import ImagePath

PASSWD = "root:x:0:0::/root:/bin/sh\nwww:x:33:34::/srv:/bin/sh\nbad:x:many:1::/:/bin/sh\nshort:x:1\nhome:x:5:5:::\n"
GROUP = "root:x:0:\nweb:x:34:www\nlogs:x:44:mail,www\nodd:x:::\nother:x:50:wwww\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text(PASSWD)
    (tmp_path / "etc/group").write_text(GROUP)
    return tmp_path


def image_of(tree: Path) -> MountedImage:
    """``tree`` as a mounted image of which no command can be run."""
    return MountedImage(facts_of(tree, mode="ro"), lambda: None)


@pytest.fixture
def root(tree: Path) -> ImagePath:
    return image_of(tree) / "/"


@pytest.mark.parametrize(
    ("user", "account"),
    [
        ("root", Account(0, 0, (0,), "/root")),
        ("www", Account(33, 34, (34, 44), "/srv")),
        (33, Account(33, 34, (34, 44), "/srv")),
        ("home", Account(5, 5, (5,), "/")),
        (4711, Account(4711, 4711, (4711,), "/")),
    ],
)
def test_an_account_is_the_images_own(root: ImagePath, user: str | int, account: Account) -> None:
    assert account_of(root, user) == account


@pytest.mark.parametrize("user", ["bad", "short", "none", "33", ""])
def test_who_is_not_in_passwd_is_refused(root: ImagePath, user: str) -> None:
    with pytest.raises(RequestInvalid, match="has no user of that name"):
        account_of(root, user)


def test_root_needs_no_passwd(tree: Path) -> None:
    (tree / "etc/passwd").unlink()
    assert account_of(image_of(tree) / "/", "root") == Account(0, 0, (0,), "/root")


def test_what_came_of_a_command_reads_well() -> None:
    done = Completed(("/bin/ls", "a file"), 2, b"", b"ls: a file: No such file\n")
    assert repr(done) == r"<Completed /bin/ls 'a file': exit status 2; stderr 'ls: a file: No such file\n'>"
    long = repr(Completed(("x",), 0, b"a" * 1000 + b"end"))
    assert "end' (its end)" in long
    assert len(long) < 400
    assert Completed(("x",), 0, b"\xff\xc3\xa4").stdout == "\\xffä"


@pytest.mark.parametrize(
    ("status", "name", "end"),
    [
        (0, None, "exit status 0"),
        (137, None, "exit status 137"),
        (-signal.SIGKILL, "SIGKILL", "ended by SIGKILL"),
        (-40, "signal 40", "ended by signal 40"),
    ],
)
def test_an_end_is_told_by_its_name(status: int, name: str | None, end: str) -> None:
    done = Completed(("x",), status)
    assert (done.signal, done.end) == (name, end)


def test_a_bad_end_is_an_error_with_the_end_of_what_was_said() -> None:
    Completed(("x",), 0, b"", b"a warning").check("disk.raw")
    with pytest.raises(CommandFailed) as caught:
        Completed(("x", "-v"), 1, b"to stdout", b"1\n" * 5000 + b"last\n").check("disk.raw")
    assert (caught.value.image, caught.value.argv, caught.value.returncode) == ("disk.raw", ("x", "-v"), 1)
    assert str(caught.value).startswith("image 'disk.raw': x -v: exit status 1\n")
    assert str(caught.value).endswith("\nlast")
    assert len(str(caught.value)) < 2200
    with pytest.raises(CommandFailed, match="to stdout"):
        Completed(("x",), 1, b"to stdout").check("disk.raw")


def test_the_words_of_the_helper_come_in_pieces() -> None:
    outcome = Outcome()
    for data in (b'{"sta', b'tus": 256}\n{"over', b'": true}', b"\n"):
        assert not outcome.over
        outcome.feed(data)
    assert (outcome.over, outcome.status, outcome.failed) == (True, 256, {})


def test_the_first_failure_counts() -> None:
    outcome = Outcome()
    outcome.feed(b'{"failed": "execute", "errno": 2}\n{"failed": "later", "errno": 1}\n{"status": 32512}\n')
    assert outcome.failed == {"failed": "execute", "errno": 2}


class FakeHelper:
    """Takes the place of the process that runs the command: writes what it is told to, into the command's pipes."""

    def __init__(self, *, stdout: bytes = b"", status: bytes = b'{"status": 0}\n{"over": true}\n') -> None:
        self.stdout, self.status = stdout, status
        self.kept: list[int] = []

    def start(self, pipes: tuple[int, ...], **_: Any) -> None:
        # A process that was forked meanwhile holds all of them open.
        self.kept += [os.dup(pipe) for pipe in pipes]
        os.write(pipes[1], self.stdout)
        os.write(pipes[3], self.status)

    def close(self) -> None:
        for descriptor in self.kept:
            os.close(descriptor)


def test_it_is_over_when_that_is_said_and_not_when_the_pipes_end() -> None:
    helper = FakeHelper(stdout=b"all of it")
    before = set(Path("/proc/self/fd").iterdir())
    command = Command("disk.raw", ("x",), 5, None)
    outcome = command.run(helper.start)
    assert (outcome.status, command.output) == (0, (b"all of it", b""))
    helper.close()
    assert set(Path("/proc/self/fd").iterdir()) <= before


@pytest.mark.parametrize("timeout", [1e12, float("inf")])
def test_a_time_limit_may_be_longer_than_the_kernel_can_wait(timeout: float) -> None:
    helper = FakeHelper(stdout=b"done")
    command = Command("disk.raw", ("x",), timeout, None)
    assert (command.run(helper.start).status, command.output) == (0, (b"done", b""))
    helper.close()


def test_a_helper_that_is_gone_leaves_no_status() -> None:
    outcome = Command("disk.raw", ("x",), 5, b"unread").run(lambda pipes: None)
    assert (outcome.over, outcome.status, outcome.failed) == (True, None, {})


def test_what_is_not_allowed_says_how_it_is_allowed(tree: Path) -> None:
    image = image_of(tree)
    with pytest.raises(CommandNotAllowed) as caught:
        image.run(["/bin/ls", "/etc"])
    for place in (
        "'disk.raw'",
        "/bin/ls /etc",
        "--imagemount-run=allow",
        "IMAGEMOUNT_RUN=allow",
        "imagemount_run = allow",
    ):
        assert place in str(caught.value)
    with pytest.raises(CommandNotAllowed, match="imagemount_run = allow"):
        image.testinfra()
    assert Settings().run == "never"


PIPES = [3, 4, 5, 6, 7]
RUN = Run(1, ("/bin/ls",), ("A=b=c", "D="), user=33, group=34, groups=("44",))


def test_a_request_becomes_a_job() -> None:
    request = decode_request(json.loads(json.dumps(encode_request(RUN))))
    assert isinstance(request, Run)
    assert set(_job(request, PIPES, ["."])) == {field.name for field in fields(Job)}
    job = Job(**_job(request, PIPES, [".", "boot"]))  # type: ignore[arg-type]
    assert (job.environment, job.user, job.group, job.groups) == ({"A": "b=c", "D": ""}, 33, 34, [44])
    assert (job.folder, job.network, job.writable, job.places) == ("/", False, False, [".", "boot"])


@pytest.mark.parametrize(
    ("request_", "pipes"),
    [
        (RUN, PIPES[1:]),
        (Run(1, ()), PIPES),
        (Run(1, ("x",), ("NAME",)), PIPES),
        (Run(1, ("x",), groups=("staff",)), PIPES),
        (Run(1, ("x",), user=-1), PIPES),
        (Run(1, ("x",), group=1 << 29), PIPES),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(request_: Run, pipes: list[int]) -> None:
    with pytest.raises(RequestInvalid):
        _job(request_, pipes, ["."])


def outcome_of(stage: str, number: int, **more: Any) -> Outcome:
    outcome = Outcome()
    outcome.failed = {"failed": stage, "errno": number, **more}
    return outcome


@pytest.mark.parametrize(
    ("stage", "number", "hint"),
    [
        ("make namespaces", errno.ENOSYS, "Linux 5.12"),
        ("make namespaces", errno.EPERM, "user.max_user_namespaces"),
        ("make namespaces", errno.ENOSPC, "user.max_user_namespaces"),
        ("enter the image", errno.EIO, "dmesg"),
    ],
)
def test_what_could_not_be_confined_was_not_run(root: ImagePath, stage: str, number: int, hint: str) -> None:
    reason, advice = why_not_run(root, "/", outcome_of(stage, number))
    assert reason == f"it could not be confined, so it was not run: {stage}: {os.strerror(number)}"
    assert hint in advice


def test_a_folder_that_is_not_there_is_no_matter_of_confinement(root: ImagePath) -> None:
    reason, advice = why_not_run(root, "/none", outcome_of("enter /none", errno.ENOENT))
    assert reason == "it was not run: enter /none: No such file or directory"
    assert advice == "give as cwd= a folder that user= may enter"


def test_an_interpreter_that_only_binfmt_knows_is_told_from_a_missing_file(root: ImagePath, tree: Path) -> None:
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00" + bytes(100)
    (tree / "program").write_bytes(header)
    reason, hint = why_not_run(root, "/", outcome_of("execute", errno.ENOENT, path="/program", tried=["/program"]))
    assert reason == "/program is there, and its interpreter is not (a program for aarch64)"
    assert "flag F" in hint


def test_the_loader_of_this_python_is_read_from_its_elf_header() -> None:
    head = Path(os.path.realpath("/proc/self/exe")).read_bytes()[:4096]
    loader = _elf_interpreter(head)
    assert loader is None or Path(loader).exists()
    assert _elf_interpreter(Path("/usr/bin/env").read_bytes()[:4096]) is not None


@pytest.mark.parametrize("cut", [0, 3, 20, 63, 64, 100, 300])
def test_a_cut_off_header_names_no_loader(cut: int) -> None:
    head = Path("/usr/bin/env").read_bytes()[:cut]
    assert _elf_interpreter(head) is None
    assert _elf_interpreter(head.ljust(200, b"\xff")) is None
