"""The lab's first process: sets the machine up, runs the command, says how it ended, and powers off."""

# ruff: noqa: PTH101, PTH102, PTH123
# pathlib is dear to import here.
from __future__ import annotations

import errno
import marshal
import os
import select
import signal
import sys
import time

from .. import frames
from ..line import READ, Line, LineLost
from . import command, modules, mounts
from .kernel import power_off
from .relay import Relay, wake_on_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

LINE = "/dev/ttyS0"
_FOLDER = "/run/imagemount-lab"
_KILL_TIMEOUT = 2.0  # seconds; a process that waits for a dead device does not die


def main() -> None:
    """Process 1."""
    line = Line(os.open(LINE, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC))
    command.make_raw(line.fd)
    try:
        line.send(frames.encode(frames.HELLO))
        config = _receive_config(line)
        try:
            troubles = _set_up(config)
        except OSError as error:
            line.send(frames.encode(frames.FAILED, f"{error.filename or 'the lab'}: {error.strerror}".encode()))
            line.flush()
        else:
            _run(line, config, troubles)
        while True:  # the machine ends the kernel now
            line.wait()
            for _ in line.receive():
                pass
    except LineLost:
        power_off()


def _receive_config(line: Line) -> dict[str, Any]:
    received = b""
    while True:
        line.wait()
        for kind, payload in line.receive():
            if kind == frames.CONFIG:
                received += payload
                line.send(frames.encode_ack(frames.CONFIG, len(payload)))
            elif kind == frames.CONFIG_END:
                config: dict[str, Any] = marshal.loads(received)
                return config
        line.push()


def _set_up(config: dict[str, Any]) -> list[str]:
    """Mounts, modules, network and names; what went wrong without being fatal."""
    mounts.mount_machine()
    with open("/sys/class/net/lo/flags", "w") as flags:
        flags.write("0x9")  # IFF_UP | IFF_LOOPBACK
    with open("/proc/sys/kernel/hostname", "w") as name:
        name.write(config["hostname"])
    loader = f"{_FOLDER}/modprobe"
    os.mkdir(_FOLDER)
    with open(loader, "w") as script:
        words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in sys.orig_argv)
        # This process's own command line, which ends in the code of ``run`` below, and the kernel's arguments.
        script.write(f'#!/bin/sh\nexec {words} "$@"\n')
    os.chmod(loader, 0o755)
    with open("/proc/sys/kernel/modprobe", "w") as setting:
        setting.write(loader)
    troubles = _load_modules(config["modules"])
    mounts.mount_folders(config["folders"])
    mounts.make_named_folders(config["environment"])
    return troubles


def _load_modules(wanted: Sequence[str]) -> list[str]:
    known = modules.running_modules()
    troubles = []
    for entry in wanted:
        name, _, parameters = entry.partition(" ")
        try:
            known.load(name, parameters)
        except OSError as error:
            troubles.append(f"module {name} could not be loaded: {error.strerror}")
    return troubles


def _run(line: Line, config: dict[str, Any], troubles: Sequence[str]) -> None:
    before = mounts.mount_points()
    wakeup = wake_on_child()
    streams, ends = command.open_streams(config["terminals"], config["size"])
    relay = Relay(line, ends)
    for trouble in troubles:
        relay.complain(trouble)
    child, error = command.start(config, streams)
    line.send(frames.encode(frames.STARTED))
    status = None

    def ended() -> bool:
        nonlocal status
        for pid, wait_status in _reaped():
            if pid == child:
                status = _exit_status(wait_status)
        return status is not None

    relay.run(wakeup, ended)
    if error:
        relay.complain(f"{error.filename}: {'command not found' if error.errno == errno.ENOENT else error.strerror}")
        status = command.status_without_start(error)
    _kill_all(wakeup)
    relay.drain()
    line.send(frames.encode(frames.ENDED, str(status).encode()))
    line.flush()
    stuck = mounts.unmount_later_than(before)
    # Twice: what the first one writes to a loop device is data of a file of the machine only then.
    os.sync()
    os.sync()
    line.send(frames.encode(frames.CLEAN, "\n".join(stuck).encode(errors="surrogateescape")))
    line.flush()


def _reaped() -> list[tuple[int, int]]:
    """The children that have ended: process id and wait status."""
    found: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if not pid:
            return found
        found.append((pid, status))


def _exit_status(wait_status: int) -> int:
    """As shells have it: 128 and the signal's number for a command that a signal ended."""
    code = os.waitstatus_to_exitcode(wait_status)
    return 128 - code if code < 0 else code


def _kill_all(wakeup: int) -> None:
    """Kill every process but this one and wait for those that die: they hold the caller's streams and folders."""
    try:
        os.kill(-1, signal.SIGKILL)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(wakeup, select.POLLIN)
    deadline = time.monotonic() + _KILL_TIMEOUT
    while (left := deadline - time.monotonic()) > 0:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        if poll.poll(left * 1000):
            os.read(wakeup, READ)


def run() -> None:
    """Process 1, or, with arguments, what the kernel calls to have a module loaded: ``modprobe -q -- NAME``."""
    if len(sys.argv) > 1:
        sys.exit(modules.main(sys.argv[1:]))
    main()
