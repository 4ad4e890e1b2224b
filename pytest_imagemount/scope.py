"""What holds images until its end: the life of one fixture scope, apart from how images are mounted in it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from .errors import ImageMountError, TeardownError, is_ours
from .pending import LIVE

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from .pending import Pending

__tracebackhide__ = is_ours


class Scope:
    """A scope with its images, which are undone when it ends.

    Threads may share it. ``over`` says whether it has ended, so that nothing would undo what is entered now.

    :param test: node id of the test, or of the wider scope, that others read when they wait for a device
    :param worker: of pytest-xdist, as ``gw0``; empty without it
    :param failed: whether a test of the scope failed, so that what is mounted at its end is kept; None keeps nothing
    :param guarded: let SIGTERM and SIGHUP run the finalizers while something is mounted
    """

    def __init__(
        self, *, test: str = "", worker: str = "", failed: Callable[[], bool] | None = None, guarded: bool = False
    ) -> None:
        self.test = test
        self.worker = worker
        self.over = False
        self._failed = failed
        self._guarded = guarded
        self._open: dict[Pending[Any], None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release everything that is still open, the latest first; every one is tried, whatever interrupts it.

        :raises TeardownError: naming each that failed
        """
        self.over = True
        keep = self._failed is not None and self._failed()
        failures: list[str] = []
        with ExitStack() as closing:
            for pending in list(self._open):
                closing.callback(self._close_one, pending, keep, failures)
        if failures:
            raise TeardownError(subject=self.test or "this process's mounts", failures=failures)

    def _close_one(self, pending: Pending[Any], keep: bool, failures: list[str]) -> None:
        try:
            if keep:
                from .keep import kept_text  # imports pytest, as does whoever keeps

                text = kept_text(self.test, pending.thing)
                pending.keep()
                LIVE.kept.append(text)
            else:
                pending.close()
        except TeardownError as error:
            failures += error.failures
        except ImageMountError as error:
            failures.append(str(error))

    def takes_over(self, error: BaseException | None) -> bool:
        """Whether the end of the scope is to decide what becomes of an image whose block is left, by ``error``.

        Never, unless what failed tests mount is to be kept.
        """
        # Whether an exception fails the test is known only later: pytest.raises may stand around it. A block that ends
        # well among the finalizers is that of a fixture, which held the image while the test failed.
        if self._failed is None:
            return False
        from .keep import KeepFailed

        return error is not None or (KeepFailed.tearing_down and self._failed())

    def adopt(self, pending: Pending[Any]) -> None:
        """Called by ``pending`` before the helper is asked for it."""
        self._open[pending] = None
        LIVE.add(pending, guarded=self._guarded, worker=bool(self.worker))

    def forget(self, pending: Pending[Any]) -> None:
        """Called by ``pending`` once it is released."""
        LIVE.discard(pending)
        self._open.pop(pending, None)
