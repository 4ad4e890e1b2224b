"""Start the caller's command in the lab, with pipes or a terminal as its standard streams."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

NOT_FOUND = 127
NOT_EXECUTABLE = 126
"""Exit statuses of a command that could not be started, as shells have them."""

_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)


class Ends:
    """Descriptors of the lab's ends of the command's streams; -1 for one that there is not."""

    def __init__(self, stdin: int, stdout: int, stderr: int, terminal: int) -> None:
        self.stdin, self.stdout, self.stderr, self.terminal = stdin, stdout, stderr, terminal


def open_streams(terminals: Sequence[bool], size: tuple[int, int]) -> tuple[list[int], Ends]:
    """The command's three streams, and the lab's ends of them: a terminal for those of ``terminals``, else pipes.

    :param size: rows and columns of the terminal
    """
    master = slave = -1
    if any(terminals):
        master, slave = os.openpty()
        make_terminal(slave)
        termios.tcsetwinsize(slave, size)
    theirs, ours = [], []
    for number, is_terminal in enumerate(terminals):
        if is_terminal:
            theirs.append(slave)
            ours.append(-1)
            continue
        read, write = os.pipe2(os.O_CLOEXEC)
        theirs.append(write if number else read)
        ours.append(read if number else write)
    for fd in (*ours, master):
        if fd >= 0:
            os.set_blocking(fd, False)
    return theirs, Ends(ours[0], ours[1], ours[2], master)


def make_terminal(fd: int) -> None:
    """The usual settings of a terminal, but that lines end as the command ends them: the caller's own adds to that."""
    settings = termios.tcgetattr(fd)
    settings[1] &= ~termios.OPOST
    settings[6][termios.VERASE] = b"\x7f"
    termios.tcsetattr(fd, termios.TCSANOW, settings)


def make_raw(fd: int) -> None:
    """Let bytes through the terminal ``fd`` as they are (termios(3), "raw mode")."""
    settings = termios.tcgetattr(fd)
    settings[0] = 0
    settings[1] = 0
    settings[2] = (settings[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8 | termios.CREAD | termios.CLOCAL
    settings[3] = 0
    settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, settings)


def start(config: Mapping[str, Any], streams: Sequence[int]) -> tuple[int, OSError | None]:
    """Start the command that ``config`` describes, and close ``streams`` here.

    Its process id, and why it could not be executed.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if not child:
        _become(config, streams, write)
    os.close(write)
    for fd in set(streams):
        os.close(fd)
    with os.fdopen(read, "rb") as report:
        number, _, what = report.read().partition(b" ")
    return child, OSError(int(number), os.strerror(int(number)), os.fsdecode(what)) if number else None


def _become(config: Mapping[str, Any], streams: Sequence[int], report: int) -> None:
    """In the child: turn into the command, or report why not and exit. Does not return."""
    what = config["cwd"]
    try:
        os.setsid()
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        for number in range(3):
            if os.isatty(number):
                fcntl.ioctl(number, termios.TIOCSCTTY, 0)
                break
        for ignored in _PYTHON_IGNORES:
            signal.signal(ignored, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_NOFILE, tuple(config["open_files"]))
        os.umask(config["umask"])
        os.chdir(config["cwd"])
        what = config["command"][0]
        os.execvpe(what, config["command"], config["environment"])
    except OSError as error:
        os.write(report, b"%d %s" % (error.errno or 0, what))
    finally:
        os._exit(NOT_FOUND)


def status_without_start(error: OSError) -> int:
    """The exit status that stands for a command which ``error`` kept from starting."""
    return NOT_FOUND if error.errno in (errno.ENOENT, errno.ENOTDIR) else NOT_EXECUTABLE
