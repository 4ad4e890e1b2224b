"""Running many cells: several lanes side by side, but one lane for NBD, whose devices are the machine's."""

from __future__ import annotations

import os
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Self

from pytest_imagemount.capabilities import missing

from .cells import NEEDS, Cell
from .driver import Result, run_cell
from .lane import enter_lane

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType


def default_lanes() -> int:
    """One more than there are cores: a cell often waits."""
    return len(os.sched_getaffinity(0)) + 1


def missing_for(backend: str) -> str | None:
    """Why cells with this backend cannot run on this machine, None if they can."""
    return next((f"{name}: {reason}" for name in NEEDS[backend] if (reason := missing(name))), None)


class Matrix:
    """The cells that are under way, by their names; leaving the block gives up those that have not begun."""

    def __init__(self, cells: Iterable[Cell], lanes: int | None = None) -> None:
        pools = {False: _pool(lanes or default_lanes()), True: _pool(1)}
        self._pools = tuple(pools.values())
        self.futures: dict[str, Future[Result]] = {
            str(cell): pools[cell.backend == "nbd"].submit(run_cell, cell) for cell in cells
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)


def _pool(lanes: int) -> ProcessPoolExecutor:
    # Not forked: what this process has open, a helper perhaps, is none of a lane's business.
    return ProcessPoolExecutor(lanes, mp_context=get_context("spawn"), initializer=enter_lane)
