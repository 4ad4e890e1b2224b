"""One command, from its pipes to its end."""

from __future__ import annotations

import io
import json
import os
import selectors
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..errors import CommandFailed, CommandTimeout, RequestInvalid
from .completed import Completed

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_OUTPUT = 16 << 20
"""Bytes that a command may write to stdout, and as many to stderr."""
_CHUNK = 1 << 16
_LONGEST_WAIT = 3600.0  # seconds; epoll takes no more than 24 days at once
_END_TIMEOUT = 5.0  # seconds; the kernel ends it in milliseconds


class Outcome:
    """What :mod:`...helper.run_inside` tells of a command, by lines of JSON."""

    def __init__(self) -> None:
        self.failed: dict[str, Any] = {}
        """The first that did not work: ``failed`` (the stage), ``errno``; for execution ``path`` and ``tried`` too."""
        self.status: int | None = None
        """As waitpid gives it."""
        self.over = False
        """Whether nothing of the command lives any more."""
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take what came."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "failed" in message:
                self.failed = self.failed or message
            self.status = message.get("status", self.status)
            self.over = self.over or "over" in message


class Command:
    """A command of image ``image`` that may take ``timeout`` seconds and reads ``data``; None is an empty stdin.

    :raises RequestInvalid: ``timeout`` is no number of seconds above 0
    """

    def __init__(self, image: str, argv: tuple[str, ...], timeout: float, data: bytes | None) -> None:
        if not timeout > 0:
            raise RequestInvalid(argument="timeout", value=repr(timeout), reason="must be seconds, more than 0")
        self._image, self._argv, self._timeout = image, argv, timeout
        self._input = memoryview(data or b"")
        self._written = {"stdout": bytearray(), "stderr": bytearray()}
        self._outcome = Outcome()
        self._selector = selectors.DefaultSelector()

    @property
    def output(self) -> tuple[bytes, bytes]:
        """What it wrote to stdout and to stderr."""
        return bytes(self._written["stdout"]), bytes(self._written["stderr"])

    def run(self, start: Callable[..., None], **request: Any) -> Outcome:
        """Start it by ``start(pipes, **request)``, and see it end.

        :raises CommandTimeout: it took longer than it may; it and all that it started are gone
        :raises CommandFailed: it wrote more than it may; likewise
        """
        deadline = time.monotonic() + self._timeout
        with ExitStack() as ours:
            ours.enter_context(self._selector)
            with ExitStack() as theirs:
                pipes, alive = self._make_pipes(ours, theirs)
                start(pipes, **request)
            try:
                self._serve(deadline)
            except BaseException:
                alive.write(b"\0")
                self._see_it_end()
                raise
        return self._outcome

    def _make_pipes(self, ours: ExitStack, theirs: ExitStack) -> tuple[tuple[int, ...], io.FileIO]:
        """The command's ends of all pipes, and our end of the one by which it is ended."""
        if self._input:
            reading, writing = _pipe()
            stdin = theirs.enter_context(reading)
            self._watch(ours.enter_context(writing), selectors.EVENT_WRITE, "stdin")
        else:
            stdin = theirs.enter_context(io.FileIO(os.devnull))
        ends = [stdin]
        for name in ("stdout", "stderr", "status"):
            reading, writing = _pipe()
            ends.append(theirs.enter_context(writing))
            self._watch(ours.enter_context(reading), selectors.EVENT_READ, name)
        reading, alive = _pipe()
        ends.append(theirs.enter_context(reading))
        return tuple(end.fileno() for end in ends), ours.enter_context(alive)

    def _watch(self, pipe: io.FileIO, event: int, name: str) -> None:
        os.set_blocking(pipe.fileno(), False)
        self._selector.register(pipe, event, name)

    def _serve(self, deadline: float) -> None:
        """Read and write until it is over, and until all is read.

        A pipe's end does not tell: a process that this one forked meanwhile may hold the other end open.
        """
        while not self._outcome.over:
            left = deadline - time.monotonic()
            ready = self._selector.select(min(max(left, 0), _LONGEST_WAIT))
            if left <= 0 and not ready:
                tail = Completed(self._argv, 0, *self.output).tail
                raise CommandTimeout(image=self._image, argv=self._argv, timeout=self._timeout, output=tail)
            for key, _ in ready:
                self._handle(key)
        for key in list(self._selector.get_map().values()):
            while key.data in self._written and self._handle(key):
                pass

    def _handle(self, key: selectors.SelectorKey) -> bool:
        """Read or write once; false where the pipe is not ready or is at its end."""
        pipe: Any = key.fileobj
        if key.data == "stdin":
            return self._feed(pipe)
        data = pipe.read(_CHUNK)
        if data is None:
            return False
        if not data:
            self._selector.unregister(pipe)
            self._outcome.over = self._outcome.over or key.data == "status"
            return False
        if key.data == "status":
            self._outcome.feed(data)
        else:
            self._keep(key.data, data)
        return True

    def _keep(self, name: str, data: bytes) -> None:
        self._written[name] += data
        if len(self._written[name]) > MOST_OUTPUT:
            reason = f"it wrote more than {MOST_OUTPUT >> 20} MiB to {name}"
            hint = "let it write less, or to a file"
            raise CommandFailed(image=self._image, argv=self._argv, returncode=None, reason=reason, hint=hint)

    def _feed(self, pipe: io.FileIO) -> bool:
        try:
            self._input = self._input[pipe.write(self._input[:_CHUNK]) or 0 :]
        except BrokenPipeError:  # it does not read all of it, as it may
            self._input = memoryview(b"")
        if not self._input:
            self._selector.unregister(pipe)
            pipe.close()
        return True

    def _see_it_end(self) -> None:
        """Wait for the word that nothing of it lives any more: until then the image's device is in use."""
        deadline = time.monotonic() + _END_TIMEOUT
        while not self._outcome.over and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                if key.data == "status":
                    self._handle(key)
                else:
                    self._selector.unregister(key.fileobj)


def _pipe() -> tuple[io.FileIO, io.FileIO]:
    """The reading and the writing end; closed by their with statements."""
    reading, writing = os.pipe()
    return io.FileIO(reading, "rb"), io.FileIO(writing, "wb")
