"""One end of the line between a lab and the machine: messages out of and into a descriptor that does not block.

The guest imports this module: see :mod:`.frames`.
"""

from __future__ import annotations

import os
import select

from . import frames

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

READ = 1 << 16
"""Bytes that one read takes at most."""


class LineLost(Exception):
    """The other end is closed: the kernel has ended, or nobody waits for it any more."""


class Line:
    """A line open at ``fd``: a raw serial line in the guest, a socket on the machine. Neither may block."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.waiting = bytearray()
        self._decoder = frames.Decoder()

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """The messages that have come."""
        try:
            data = os.read(self.fd, READ)
        except BlockingIOError:
            return
        except OSError as error:
            raise LineLost from error
        if not data:
            raise LineLost
        yield from self._decoder.feed(data)

    def send(self, message: bytes) -> None:
        """Queue ``message``; what the line takes leaves at once."""
        self.waiting += message
        self.push()

    def push(self) -> None:
        """Send what the line takes of what is queued."""
        while self.waiting:
            try:
                sent = os.write(self.fd, self.waiting)
            except BlockingIOError:
                return
            except OSError as error:
                raise LineLost from error
            if not sent:
                return
            del self.waiting[:sent]

    def wait(self, timeout: int | None = None) -> None:
        """Wait until there is something to receive, or room for what is queued. ``timeout`` is in milliseconds."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN | (select.POLLOUT if self.waiting else 0))
        poll.poll(timeout)

    def flush(self) -> None:
        """Send all that is queued."""
        while self.waiting:
            poll = select.poll()
            poll.register(self.fd, select.POLLOUT)
            poll.poll()
            self.push()
