"""A small process of its own that runs one command of an image, in a private view of the machine.

Three processes. The outer one, root in the machine's namespaces, waits. The first one inside is process 1 of a pid
namespace: when it ends, for whatever reason, the kernel kills everything in there. Its child becomes the command.

The end comes when the command ends, when the test process says so or is gone (its pipe), when the helper says so or is
gone (stdin), or when any of the three is killed. No word of it is needed: pipes and PR_SET_PDEATHSIG see to it.

What happened is told on a pipe, a JSON object a line: ``{"failed": stage, "errno": number, …}``, ``{"status": as
waitpid gives it}``, and always last, when nothing in there lives any more, ``{"over": true}``.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import select
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..engine import syscalls
from . import namespace_calls as calls
from .private_root import enter, furnish, take_tree

if TYPE_CHECKING:
    from typing import NoReturn

    from .private_root import Tree

_MIB = 1 << 20
LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_DATA: 4096 * _MIB,
    resource.RLIMIT_FSIZE: 1024 * _MIB,
    resource.RLIMIT_NOFILE: 1024,
    resource.RLIMIT_NPROC: 1024,
}
"""For each process of the command. Root of the machine itself (see :func:`.private_root.furnish`) has no NPROC."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to run. ``groups`` are the supplementary ones; all ids are as in the image.

    ``places`` are the paths of the mounts that make its tree: ``.`` for the root, then what lies below it.
    """

    argv: list[str]
    environment: dict[str, str]
    folder: str
    user: int
    group: int
    groups: list[int]
    network: bool
    writable: bool
    places: list[str]


@dataclass(frozen=True, slots=True)
class Pipes:
    """The descriptors that come from the test process."""

    stdin: int
    stdout: int
    stderr: int
    status: int
    alive: int

    def tell(self, **what: Any) -> None:
        """A line for the test process; nothing where that is gone."""
        with suppress(OSError):
            os.write(self.status, json.dumps(what).encode() + b"\n")

    def tell_failure(self, stage: str, error: Exception, **more: Any) -> None:
        """What did not work, and why."""
        if isinstance(error, OSError):
            self.tell(failed=stage, errno=error.errno or errno.EIO, **more)
        else:
            self.tell(failed=f"{stage}: a fault in the helper: {error!r}", errno=errno.EIO)


def main(arguments: list[str]) -> int:
    """Run the job in the file open at the first of ``arguments``; five pipes, and a folder for each place, follow."""
    job_file, *numbers = map(int, arguments)
    pipes, folders = Pipes(*numbers[:5]), numbers[5:]
    with os.fdopen(job_file, encoding="utf-8") as file:
        job = Job(**json.load(file))
    for number in numbers:
        os.set_inheritable(number, False)
    syscalls.set_parent_death_signal(signal.SIGKILL)
    try:
        tree = take_tree(dict(zip(job.places, folders, strict=True)), writable=job.writable)
        calls.unshare(calls.CLONE_NEWPID)
    except OSError as error:
        pipes.tell_failure("make namespaces", error)
        pipes.tell(over=True)
        return 1
    from_outer, outer = os.pipe()
    first = os.fork()
    if not first:
        os.close(outer)
        _be_first(job, tree, pipes, from_outer)
    for number in (pipes.stdin, pipes.stdout, pipes.stderr, *tree.mounts.values(), tree.users, from_outer):
        os.close(number)
    _wait(first, pipes.alive)
    pipes.tell(over=True)
    return 0


def _wait(first: int, alive: int) -> None:
    """Until process ``first`` has ended, and with it its whole pid namespace; end it when nobody wants it any more."""
    ended = os.pidfd_open(first)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    for owner in (sys.stdin.fileno(), alive):
        poll.register(owner, select.POLLIN)
    if all(descriptor != ended for descriptor, _ in poll.poll()):
        signal.pidfd_send_signal(ended, signal.SIGKILL)
    os.waitpid(first, 0)  # returns when the kernel has killed and reaped all others in there


def _be_first(job: Job, tree: Tree, pipes: Pipes, from_outer: int) -> NoReturn:
    """Process 1 of the pid namespace: make the rest private, start the command, bury whom it leaves, tell its end."""
    stage = "make namespaces"
    try:
        syscalls.set_parent_death_signal(signal.SIGKILL)
        if select.select([from_outer], [], [], 0)[0]:  # it died before the line above
            os._exit(1)
        # This process is executed from a file of the machine, and has more rights than the command.
        calls.set_undumpable()
        network = 0 if job.network else calls.CLONE_NEWNET
        calls.unshare(calls.CLONE_NEWIPC | calls.CLONE_NEWUTS | calls.CLONE_NEWCGROUP | network)
        stage = "enter the image"
        enter(tree)
        _import_nothing_more()
        stage = "mount /proc, /dev, /tmp and /run"
        furnish(tree)
        stage = "start a process"
        command = os.fork()
        if not command:
            _be_command(job, tree.users, pipes)
        calls.drop_capabilities()
        pipes.tell(status=_reap(command))
    except Exception as error:  # noqa: BLE001  (it would not be seen)
        pipes.tell_failure(stage, error)
    finally:
        os._exit(0)


def _import_nothing_more() -> None:
    """From here on, the modules that an import would find are the image's."""
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path.clear()


def _reap(command: int) -> int:
    while True:
        pid, status = os.wait()
        if pid == command:
            return status


def _be_command(job: Job, users: int, pipes: Pipes) -> NoReturn:
    stage = "give up every right"
    try:
        os.setsid()
        for number, descriptor in enumerate((pipes.stdin, pipes.stdout, pipes.stderr)):
            os.dup2(descriptor, number)
        calls.setns(users, calls.CLONE_NEWUSER)
        calls.join_new_session_keyring()
        for limit, value in LIMITS.items():
            _lower(limit, value)
        calls.empty_bounding_set()
        os.setgroups(job.groups)
        os.setresgid(job.group, job.group, job.group)
        os.setresuid(job.user, job.user, job.user)
        calls.drop_capabilities()
        calls.set_no_new_privileges()
        os.umask(0o022)
        for signal_number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if signal_number < signal.SIGRTMIN:  # the C library keeps some of the others for itself
                signal.signal(signal_number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        stage = f"enter {job.folder}"
        os.chdir(job.folder)
        _execute(job, pipes)
    except Exception as error:  # noqa: BLE001  (it would not be seen)
        pipes.tell_failure(stage, error)
    finally:
        os._exit(127)


def _lower(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _execute(job: Job, pipes: Pipes) -> None:
    """As execvp does: where the name has no slash, the first that can be executed of the folders of ``PATH``."""
    name = job.argv[0]
    folders = job.environment.get("PATH", "").split(":")
    tried = [name] if "/" in name else [f"{folder or '.'}/{name}" for folder in folders]
    failure = OSError(errno.ENOENT, "")
    path = ""
    for path in tried:
        try:
            os.execve(path, job.argv, job.environment)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                continue
            failure = error
            if error.errno != errno.EACCES:
                break
    pipes.tell_failure("execute", failure, path=path, tried=tried)
