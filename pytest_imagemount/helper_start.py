"""Starting the helper: directly for root, by ``sudo -n`` for others.

It connects back to a socket in the run folder, which only the user and root can reach. So it does not matter what sudo
does to descriptors, environment and terminal, and the kernel tells both ends who the other is.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .engine.folders import run_folder
from .errors import CapabilityMissing, HelperStartFailed, is_ours
from .helper import messages
from .programs import find_program

if TYPE_CHECKING:
    from typing import IO

__tracebackhide__ = is_ours
_TIMEOUT = 30.0  # seconds: PAM behind sudo may ask a server that is slow to answer

# Not `-m`: isolated mode keeps PYTHON* variables and the working folder from choosing what the helper imports, and
# the packages may be on a path that only this process knows. They are found by their names: with their folders before
# the standard library's, what else lies there would stand in for its modules (`dataclasses`, `typing`: backports).
_PACKAGES = (__package__, "filelock")
_BOOT = f"""
import sys
from importlib.machinery import PathFinder
class Given:
    folders = dict(zip({_PACKAGES}, (sys.argv.pop(1), sys.argv.pop(1))))
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return PathFinder.find_spec(name, [cls.folders[name]]) if cls.folders.get(name) else None
sys.meta_path.insert(0, Given)
from pytest_imagemount.helper.server import main
sys.exit(main(sys.argv[1:]))
"""
_ALLOW = "let this user run `sudo -n` (a line `{} ALL=(root) NOPASSWD: ALL` in a file of /etc/sudoers.d)"
_ENTER = "give this user a line in /etc/passwd, without which sudo serves nobody"
_CHOICES = (
    "run as root, or {}, or run the tests in a kernel of their own, which needs neither: `imagemount lab -- pytest`"
)


def start_helper(sudo: str, output: IO[bytes]) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A helper, and the socket to it.

    :param sudo: ``auto`` or ``never``
    :param output: takes what it prints
    :raises CapabilityMissing: this process is not root, and sudo does not help
    :raises HelperStartFailed: it ended, or did not connect in time
    """
    privilege = _privilege(sudo)
    path = run_folder() / f"client-{os.getpid()}-{threading.get_ident():x}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        path.unlink(missing_ok=True)
        try:
            listener.bind(str(path))
            listener.listen(1)
            process = _launch([*privilege, *helper_argv(path)], output, in_session=bool(privilege))
            channel = _accept(listener, process)
        except OSError as error:
            hint = "see whether its folder can be written, and whether XDG_RUNTIME_DIR is a short path"
            raise HelperStartFailed(reason=f"{path}: {error.strerror or error}", hint=hint) from error
        finally:
            path.unlink(missing_ok=True)
    if channel is None:
        raise _failure(process, output, by_sudo=bool(privilege))
    return process, channel


def helper_argv(path: Path) -> list[str]:
    """What runs a helper that serves this user at the socket ``path``."""
    return [sys.executable, "-I", "-c", _BOOT, *map(_folder_of, _PACKAGES), str(path), str(os.geteuid())]


def _folder_of(package: str) -> str:
    """The folder that ``package`` is imported from; empty where it is not installed."""
    from importlib.util import find_spec

    spec = find_spec(package)
    return "" if spec is None or spec.origin is None else str(Path(spec.origin).parent.parent)


def last_words(output: IO[bytes]) -> str:
    """The end of what a helper printed."""
    size = os.fstat(output.fileno()).st_size
    return os.pread(output.fileno(), 4000, max(0, size - 4000)).decode(errors="replace").strip()


def abandon(process: subprocess.Popen[bytes]) -> None:
    """Let ``process`` live on: nobody waits for it, and Popen shall not warn that nobody does."""
    if process.poll() is None:
        process.returncode = 0


def _privilege(sudo: str) -> list[str]:
    """What comes before the helper's command: nothing for root, sudo for others."""
    if os.geteuid() == 0:
        return []
    if sudo == "never":
        raise _no_privilege("imagemount_sudo=never forbids sudo", "run as root, or let imagemount_sudo be auto")
    from .capabilities import capabilities
    from .probes import sudo_usable

    if reason := sudo_usable(capabilities()):
        raise _no_privilege(reason, _choices())
    return [find_program("sudo") or "sudo", "-n", "--"]


def _launch(argv: list[str], output: IO[bytes], *, in_session: bool) -> subprocess.Popen[bytes]:
    """Start it where the terminal's Ctrl-C does not reach it.

    A session of its own would do, but sudo remembers a password by the terminal of the session: in another it asks
    again. So sudo gets a process group only, in the background, where it leaves the terminal alone even when it runs
    its command in a new one (``use_pty``); the helper makes itself a session.
    """
    return subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        start_new_session=not in_session,
        process_group=0 if in_session else None,
    )


def _accept(listener: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket | None:
    """The connection of a helper that is root's or this user's own; None when the process ended or took too long."""
    deadline = time.monotonic() + _TIMEOUT
    ended = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(ended, selectors.EVENT_READ)
            while ready := selector.select(max(0.0, deadline - time.monotonic())):
                if all(key.fileobj != listener for key, _ in ready):
                    return None
                channel, _ = listener.accept()
                if messages.peer(channel)[1] in (0, os.geteuid()):
                    return channel
                channel.close()
    finally:
        os.close(ended)
    return None


def _failure(process: subprocess.Popen[bytes], output: IO[bytes], *, by_sudo: bool) -> Exception:
    """Why there was no connection. The process is ended, or, where it is root's, given up: nobody listens to it."""
    status = process.poll()
    if status is None:
        with suppress(PermissionError):
            process.kill()
            process.wait()
        abandon(process)
        reason = f"no word from it within {_TIMEOUT:.0f} s"
        return HelperStartFailed(reason=reason, hint="its output follows", output=last_words(output))
    said = last_words(output)
    if by_sudo and (refusal := _refusal(said)):
        hint = _choices()
        if "must have a tty" in said:
            hint = f"take `requiretty` from this user in sudoers (`Defaults:{_user()} !requiretty`), or {hint}"
        return _no_privilege(f"sudo refuses: {refusal}", hint)
    return HelperStartFailed(reason=f"exit status {status}", hint="its output follows", output=said)


def _refusal(said: str) -> str | None:
    """sudo's own last line; None where its command spoke after it."""
    line = said.splitlines()[-1] if said else ""
    return line.removeprefix("sudo: ") if line.startswith(("sudo: ", "Sorry, user ")) else None


def _no_privilege(reason: str, hint: str) -> CapabilityMissing:
    return CapabilityMissing(capability="root", reason=f"the user is {os.geteuid()}, and {reason}", hint=hint)


def _choices() -> str:
    user = _user()
    return _CHOICES.format(_ENTER if user is None else _ALLOW.format(user))


def _user() -> str | None:
    """As sudoers names it; None where the machine does not know it, as in a container with any user id."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return None
