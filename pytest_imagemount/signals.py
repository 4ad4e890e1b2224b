"""Signals in the test process: an undo is not torn apart by Ctrl-C, and SIGTERM and SIGHUP undo before they end it.

Everything here works with Python's own handlers. A signal mask would not do: the C-level handler may run in any other
thread, and the main thread then calls the Python handler whatever its own mask says.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # typeshed has it under its public name only
import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Self

_ENDING = (int(signal.SIGTERM), int(signal.SIGHUP))
_DEFERRED = (int(signal.SIGINT), *_ENDING)
_DEFAULT, _IGNORED = int(signal.SIG_DFL), int(signal.SIG_IGN)

# What ``signal`` wraps. Its own functions make an enumeration's member of every number and handler that they give,
# which made a deferral cost 60 µs, and there are three to a mount.
_getsignal, _setsignal = _signal.getsignal, _signal.signal

# From then on a Ctrl-C gets through, so that a helper that hangs cannot make the process deaf. Above the 4 s that
# undoing everything may take.
_LONGEST_DEFERRAL = 5.0

_PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2  # linux/prctl.h


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP came while something was mounted: the finalizers run, then the process ends by that signal.

    A KeyboardInterrupt, since what a test or a library does about Ctrl-C is right here too.
    """


class Deferred:
    """A block in which SIGINT, SIGTERM and SIGHUP wait; those that came are raised once each when it ends.

    Handlers that were not set from Python, and signals that are ignored, are left alone. Outside of the main thread
    it does nothing, since handlers never run there. Blocks may lie within each other.

    :param limit: seconds after which signals are no longer held back
    """

    def __init__(self, limit: float = _LONGEST_DEFERRAL) -> None:
        self._limit = limit
        self._until = 0.0
        # While this is false, this object passes signals on as if it were not there: should an interrupt hit the few
        # instructions in which handlers are set or set back, what is left of it does no harm.
        self._active = False
        self._handlers: dict[int, Any] = {}
        self._came: dict[int, None] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _DEFERRED:
                handler = _getsignal(number)
                if isinstance(handler, Deferred):
                    if handler._active:
                        continue
                    handler = _handler_of(number)
                if handler is None or handler == _IGNORED:
                    continue
                self._handlers[number] = handler
                _setsignal(number, self)
            self._until = time.monotonic() + self._limit
            self._active = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._active = False
        try:
            for number, handler in self._handlers.items():
                found = _setsignal(number, handler)
                if found is not self and found is not None:  # the block has set one of its own
                    _setsignal(number, found)
        finally:
            if self._came:
                _raise_each(list(self._came))

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """As the handler of ``number``."""
        if self._active and time.monotonic() < self._until:
            self._came[number] = None
        else:
            _setsignal(number, self._handlers[number])
            signal.raise_signal(number)


def _raise_each(numbers: list[int]) -> None:
    """Raise signals; a handler that raises an exception does not keep the next one from being called."""
    if numbers:
        try:
            signal.raise_signal(numbers[0])
        finally:
            _raise_each(numbers[1:])


def _deferral_of(number: int) -> Deferred | None:
    handler: Any = _getsignal(number)
    return handler if isinstance(handler, Deferred) else None


def _handler_of(number: int) -> Any:
    """The handler of ``number``, as it is where nothing is deferred; None where it was not set from Python."""
    handler: Any = _getsignal(number)
    while isinstance(handler, Deferred):
        handler = handler._handlers[number]
    return handler


def _set_handler(number: int, handler: Any) -> None:
    """Set it, with effect from the end of the deferral if there is one."""
    holder = _deferral_of(number)
    if holder is not None and holder._active:
        holder._handlers[number] = handler
    else:
        _setsignal(number, handler)


class Guard:
    """While it is up, SIGTERM and SIGHUP raise :class:`Terminated` in the main thread.

    It takes the place of the default handlers only, and of none outside of the main thread. A child that is forked
    meanwhile has the default handlers again.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        """The signal that came, if one did: the process is to end by it."""
        self._up = False
        self._set: list[int] = []
        self._watches_parent = False
        self._watches_forks = False
        self._forking = threading.local()

    def raise_up(self, *, with_parent: bool = False) -> None:
        """Set the handlers; a second call does nothing.

        :param with_parent: SIGTERM shall come, too, when the parent process is gone: a worker of pytest-xdist would
            notice only after five seconds that its controller was killed
        """
        if self._up or threading.current_thread() is not threading.main_thread():
            return
        if not self._watches_forks:
            self._watches_forks = True
            os.register_at_fork(
                before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._in_child
            )
        self._up = True
        for number in _ENDING:
            handler = _handler_of(number)
            # Ours may stand there still: a test that had its own in the meantime has set it back.
            if number not in self._set and (handler == _DEFAULT or handler is self):
                self._set.append(number)
                _set_handler(number, self)
        if with_parent and signal.SIGTERM in self._set and not _parent_death_signal():
            self._watches_parent = True
            _set_parent_death_signal(signal.SIGTERM)

    def take_down(self) -> None:
        """Set the default handlers again. In another thread than the main one, they are set when a signal comes."""
        self._up = False
        if self._set and threading.current_thread() is threading.main_thread():
            if self._watches_parent:
                self._watches_parent = False
                _set_parent_death_signal(0)
            self._set_back()

    def end_as_told(self) -> None:
        """End this process by the signal that came, if one did."""
        if self.received is not None:
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):  # closed, or not there
                    stream.flush()
            _end_by(self.received)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """As the handler of ``number``."""
        if not self._up:
            _end_by(number)
        self.received = number
        raise Terminated(signal.Signals(number).name)

    # A signal to a child in its first instructions, while it still has our handlers, would be forgotten: CPython
    # clears what came before its own at-fork work was done. So the kernel holds it until the handlers are set back.
    def _before_fork(self) -> None:
        self._forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING if self._set else ())

    def _after_fork(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._forking.mask)

    def _in_child(self) -> None:
        self._up, self._watches_parent, self.received = False, False, None
        self._set_back()
        self._after_fork()

    def _set_back(self) -> None:
        for number in self._set:
            if _handler_of(number) is self:
                _set_handler(number, _DEFAULT)
        self._set.clear()


def _end_by(number: int) -> None:
    _setsignal(number, _DEFAULT)
    signal.raise_signal(number)


def _parent_death_signal() -> int:
    number = ctypes.c_int()
    ctypes.CDLL(None).prctl(_PR_GET_PDEATHSIG, ctypes.byref(number), 0, 0, 0)
    return number.value


def _set_parent_death_signal(number: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(number), 0, 0, 0)
