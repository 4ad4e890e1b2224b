"""The three stages of a mount in their order, and their undo: what each of them does is :mod:`.mount`'s."""

from __future__ import annotations

import time
from enum import Enum
from typing import TYPE_CHECKING

from ..errors import StageError, TeardownError
from .undo import UndoStack, deadline

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

# Once a step of a close has failed: how long the steps after it may take together. What they undo is most likely held
# by what the failed one left.
_PATIENCE_AFTER_FAILURE = 0.1


class State(Enum):
    """How far a mount has come."""

    NEW = "new"
    ATTACHED = "attached"
    MAPPED = "mapped"
    MOUNTED = "mounted"


class Stages:
    """``attach``, ``map``, ``mount``, and back: ``unmount``, ``unmap``, ``detach``; as a context manager all three.

    Each stage keeps its own undo stack; a stage that fails undoes itself; an undo tries every step.

    :param subject: what is mounted, for messages
    """

    def __init__(self, subject: str) -> None:
        self.state = State.NEW
        self._subject = subject
        self._undo = {stage: UndoStack() for stage in State}

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self, *, attach_only: bool = False) -> None:
        """All three stages, or the first two; a failure leaves nothing behind."""
        try:
            self.attach()
            self.map()
            if not attach_only:
                self.mount()
        except BaseException as error:
            self._undo_after(error)
            raise

    def close(self) -> None:
        """Every undo that is still due, within the :func:`~.undo.deadline` that is set.

        Every one is tried, but those that would pull the ground from under what the kernel still uses: the device of a
        busy mount, the export of a busy device.

        :raises TeardownError: naming each step that failed. Calling again tries those again.
        """
        order = (State.MOUNTED, State.MAPPED, State.ATTACHED)
        failures = self._undo[State.MOUNTED].run()
        for stage, holds in ((State.MAPPED, self._is_mounted), (State.ATTACHED, self._is_attached)):
            if failures and self._undo[stage]:
                if holds():
                    break
                with deadline(time.monotonic() + _PATIENCE_AFTER_FAILURE):
                    failures += self._undo[stage].run()
            else:
                failures += self._undo[stage].run()
        self.state = next((stage for stage in order if self._undo[stage]), State.NEW)
        if failures:
            raise TeardownError(subject=self._subject, failures=failures)

    def attach(self) -> None:
        """image → readable bytes."""
        raise NotImplementedError

    def map(self) -> None:
        """readable bytes → block device."""
        raise NotImplementedError

    def mount(self) -> None:
        """block device → file system."""
        raise NotImplementedError

    def unmount(self) -> None:
        """Undo of :meth:`mount`."""
        self._undo_stage("unmount", State.MOUNTED, State.MAPPED)

    def unmap(self) -> None:
        """Undo of :meth:`map`."""
        self._undo_stage("unmap", State.MAPPED, State.ATTACHED)

    def detach(self) -> None:
        """Undo of :meth:`attach`."""
        self._undo_stage("detach", State.ATTACHED, State.NEW)

    def _is_mounted(self) -> bool:
        """Whether the kernel has the file system mounted still."""
        raise NotImplementedError

    def _is_attached(self) -> bool:
        """Whether the kernel has the block device still."""
        raise NotImplementedError

    def _stage(self, reached: State) -> _Stage:
        return _Stage(self, reached)

    def _require(self, stage: str, state: State) -> None:
        if self.state is not state:
            raise StageError(stage=stage, state=self.state.value, needs=state.value)

    def _undo_stage(self, name: str, stage: State, below: State) -> None:
        self._require(name, stage)
        self._undo[stage].close(f"{self._subject} ({name})")
        self.state = below

    def _undo_after(self, error: BaseException) -> None:
        try:
            self.close()
        except TeardownError as failure:
            error.add_note(str(failure))


class _Stage:
    """Runs one stage: on success the state is reached, on failure the stage's own steps are undone."""

    def __init__(self, stages: Stages, reached: State) -> None:
        self._stages = stages
        self._reached = reached
        self._undo = stages._undo[reached]

    def __enter__(self) -> UndoStack:
        return self._undo

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._stages.state = self._reached
            return
        for line in self._undo.run():
            error.add_note(line)
