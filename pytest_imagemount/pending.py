"""An image that a test asked for, from the moment it is entered until the last of it is undone.

Whatever interrupts it, and wherever: the number by which the helper knows the mount is registered before the helper
is asked for it, and stays registered until the helper has said that it is gone.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import RequestInvalid, is_ours
from .helper import protocol
from .mounted_image import BlockDevice, MountedImage
from .remote_opener import opener_for
from .signals import Deferred, Guard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from .client import Client
    from .image_root import Opener
    from .running.starter import Starter
    from .scope import Scope

__tracebackhide__ = is_ours
Thing = TypeVar("Thing", bound=MountedImage | BlockDevice)


class Pending(Generic[Thing]):
    """An image that will be mounted or attached on entering, and released on leaving or when its scope ends.

    It can be entered again after it was left. Threads may share it.
    """

    def __init__(
        self,
        scope: Scope,
        name: str,
        open_it: Callable[[Pending[Thing]], Thing],
        close_it: Callable[[Thing], None],
    ) -> None:
        self.name = name
        self.scope = scope
        self._open: Callable[[Pending[Thing]], Thing] = open_it
        self._close: Callable[[Thing], None] = close_it
        self._thing: Thing | None = None
        self._claimed: tuple[Client, int] | None = None
        self._lock = threading.RLock()  # a signal handler may tear down in the middle of it

    def __repr__(self) -> str:
        return f"<{self.name!r}, {'open' if self._thing else 'not open: use it in a with statement'}>"

    def __enter__(self) -> Thing:
        self.refuse_when_over()
        try:
            self._thing = self._open(self)
        except AlreadyOpen:
            raise
        except BaseException:
            self.release()
            raise
        return self._thing

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.scope.takes_over(error):
            self.close()

    @property
    def thing(self) -> Thing | None:
        """What it gave, while it is open."""
        return self._thing

    @property
    def helper(self) -> int | None:
        """pid of the helper that has it."""
        return self._claimed[0].helper_pid if self._claimed else None

    @property
    def claimed(self) -> tuple[Client, int]:
        """Who has it, and under which number; it must have been claimed."""
        assert self._claimed is not None
        return self._claimed

    def close(self) -> None:
        """Release it, if it is open."""
        thing = self._thing
        if thing is not None:
            self._close(thing)
            self._thing = None
        self.release()

    def opener(self, root: Path) -> Opener:
        """What opens files inside the image, which the helper has mounted at ``root``."""
        assert self._claimed is not None
        return opener_for(*self._claimed, root)

    def starter(self, *, allowed: bool) -> Starter:
        """What starts commands of the image, where they are ``allowed``."""
        from .running.starter import Starter

        assert self._claimed is not None
        return Starter(*self._claimed, allowed=allowed)

    def refuse_when_over(self) -> None:
        """Called around each request.

        :raises RequestInvalid: the scope has ended: nothing would undo it
        """
        if self.scope.over:
            reason = f"the factory's scope, {self.scope.test}, has ended; take the factory of a wider scope"
            raise RequestInvalid(argument="image", value=repr(self.name), reason=reason)

    def claim(self, client: Client) -> int:
        """The number by which it will be released, whatever becomes of the request.

        :raises AlreadyOpen: another ``with`` holds it now
        """
        with self._lock:
            if self._claimed is not None:
                raise AlreadyOpen(argument="image", value=repr(self.name), reason="this mount is open already")
            self._claimed = client, client.new_mount()
            self.scope.adopt(self)
            return self._claimed[1]

    def release(self) -> None:
        """Have the helper undo it. A failure leaves it claimed, so that the end of the scope tries again."""
        self._hand_over(protocol.Release)

    def keep(self) -> None:
        """Have the helper leave it as it is until ``imagemount clean --kept``."""
        self._hand_over(protocol.Keep)

    def _hand_over(self, request: type[protocol.Release | protocol.Keep]) -> None:
        claimed = self._claimed
        if claimed is not None:
            client, number = claimed
            # In a forked child it is the parent's, and stays.
            if client.pid == os.getpid():
                with Deferred():
                    client.ask(request(number))
                    with self._lock:
                        if self._claimed == claimed:
                            self._claimed = None
        if self._claimed is None:
            self.scope.forget(self)


class AlreadyOpen(RequestInvalid):
    """One image was entered twice."""


class Live:
    """What this process holds, over all scopes; the guard against signals is up while there is something."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self.kept: list[str] = []
        """A text for each mount that was left for a person to look at."""
        self.helper: int | None = None
        """pid of the latest helper."""
        self.devices: set[str] = set()
        """Every block device that there was, as ``/dev/loop3``."""
        self._pending: dict[Pending[Any], bool] = {}
        self._renew_lock()
        # The thread that may have the lock is not there, in a forked child, to release it.
        os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()  # a signal handler may tear down in the middle of it

    def add(self, pending: Pending[Any], *, guarded: bool, worker: bool) -> None:
        """Register; ``guarded`` asks for the guard, ``worker`` for its watch over the parent process."""
        with self._lock:
            self.helper = pending.helper
            self._pending[pending] = guarded
            if guarded:
                self.guard.raise_up(with_parent=worker)

    def discard(self, pending: Pending[Any]) -> None:
        """It is undone; unknown ones do not matter."""
        with self._lock:
            self._pending.pop(pending, None)
            if not any(self._pending.values()):
                self.guard.take_down()

    def all(self) -> list[Pending[Any]]:
        """In the order in which they were entered."""
        with self._lock:
            return list(self._pending)

    def clear(self) -> list[str]:
        """Forget everything: the helper has ended. Returns what was kept."""
        with self._lock:
            self._pending.clear()
            self.guard.take_down()
            self.helper = None
            self.devices.clear()
            kept, self.kept = self.kept, []
            return kept


LIVE = Live(Guard())
