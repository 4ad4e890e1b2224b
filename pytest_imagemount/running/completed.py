"""What a command of an image left: its status and its output."""

from __future__ import annotations

import shlex
import signal
from dataclasses import dataclass

from ..errors import CommandFailed

_TAIL = 2000
_SHOWN = 300


@dataclass(frozen=True, slots=True, repr=False)
class Completed:
    """A command that has ended.

    :param args: the command and its arguments
    :param returncode: its exit status; negative, the number of the signal that ended it
    """

    args: tuple[str, ...]
    returncode: int
    stdout_bytes: bytes = b""
    stderr_bytes: bytes = b""

    @property
    def stdout(self) -> str:
        """What it wrote, decoded; a byte that is not UTF-8 stands as ``\\xNN``."""
        return _text(self.stdout_bytes)

    @property
    def stderr(self) -> str:
        """As :attr:`stdout`."""
        return _text(self.stderr_bytes)

    @property
    def signal(self) -> str | None:
        """``SIGSEGV``, …; None where no signal ended it."""
        if self.returncode >= 0:
            return None
        try:
            return signal.Signals(-self.returncode).name
        except ValueError:  # a real-time signal
            return f"signal {-self.returncode}"

    @property
    def end(self) -> str:
        """How it ended: ``exit status 1``, ``ended by SIGSEGV``."""
        return f"ended by {self.signal}" if self.signal else f"exit status {self.returncode}"

    @property
    def tail(self) -> str:
        """The end of stderr, or where that is empty of stdout."""
        return (self.stderr.strip() or self.stdout.strip())[-_TAIL:]

    def check(self, image: str) -> None:
        """Return when the status is 0.

        :param image: its name, for the message
        :raises CommandFailed: it is not
        """
        if self.returncode:
            raise CommandFailed(
                image=image, argv=self.args, returncode=self.returncode, reason=self.end, output=self.tail
            )

    def __repr__(self) -> str:
        parts = [f"{shlex.join(self.args)}: {self.end}"]
        for name, text in (("stdout", self.stdout), ("stderr", self.stderr)):
            if text:
                parts.append(f"{name} {text[-_SHOWN:]!r}" + (" (its end)" if len(text) > _SHOWN else ""))
        return f"<Completed {'; '.join(parts)}>"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")
