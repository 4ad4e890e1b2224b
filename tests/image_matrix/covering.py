"""A few of many candidates that together have every part that the many have: greedily, and the same ones each time."""

from __future__ import annotations

import hashlib
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable

Candidate = TypeVar("Candidate")


def covering(
    candidates: Collection[Candidate],
    *,
    key: Callable[[Candidate], str],
    parts: Callable[[Candidate], Collection[Hashable]],
) -> list[Candidate]:
    """Those that are taken, each time the one with most parts that none before it has.

    :param key: a text that no two candidates share; of equally good ones its hash decides, which spreads their values
    """
    bits: dict[Hashable, int] = {}
    waiting = []
    for candidate in candidates:
        mask = 0
        for part in parts(candidate):
            mask |= bits.setdefault(part, 1 << len(bits))
        digest = hashlib.sha256(key(candidate).encode()).hexdigest()
        waiting.append((-mask.bit_count(), digest, mask, candidate))
    missing = (1 << len(bits)) - 1
    heapify(waiting)
    taken = []
    while missing:
        _, digest, mask, candidate = heappop(waiting)
        # What a candidate adds only falls from step to step: whoever is still the best with what it adds now is it.
        gain = -(mask & missing).bit_count()
        if waiting and (gain, digest) > waiting[0][:2]:
            heappush(waiting, (gain, digest, mask, candidate))
            continue
        taken.append(candidate)
        missing &= ~mask
    return taken
