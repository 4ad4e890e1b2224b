"""Changes to bytes such as break readers of headers: odd numbers in odd places, cuts, repetitions, mixtures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

_NUMBERS = (0, 1, 2, 7, 8, 9, 21, 31, 32, 63, 64, 255, 256, 511, 512, 513, 4095, 65535, 65536)
_HEADER = 1024


def mutated(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """``data`` with one to eight changes; ``others`` is what it may be mixed with."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        _change(changed, others, chance)
    return bytes(changed)


def _change(data: bytearray, others: Sequence[bytes], chance: random.Random) -> None:
    # Where the numbers are: at the start and at the end far more often than between.
    place = chance.choice((chance.randrange(_HEADER), chance.randrange(len(data) + 1), max(len(data) - _HEADER, 0)))
    place = min(place + chance.choice((0, chance.randrange(_HEADER))), max(len(data) - 1, 0))
    kind = chance.randrange(10)
    if kind < 5:
        size = chance.choice((1, 2, 4, 8))
        place = place // size * size
        data[place : place + size] = _number(chance, size)
    elif kind < 7 and data:
        data[place] ^= 1 << chance.randrange(8)
    elif kind == 7:
        del data[chance.choice((place, chance.randrange(_HEADER))) :]
    elif kind == 8:
        length = chance.randrange(1, 600)
        data[place:place] = data[place : place + length]
    else:
        other = chance.choice(others)
        length = chance.choice((16, 512, 4096))
        data[place : place + length] = other[place : place + length]


def _number(chance: random.Random, size: int) -> bytes:
    bits = 8 * size
    number = chance.choice(
        (
            chance.choice(_NUMBERS),
            (1 << chance.randrange(bits)) - chance.randrange(2),
            (1 << bits) - chance.choice(_NUMBERS),
            chance.getrandbits(bits),
        )
    )
    return (number % (1 << bits)).to_bytes(size, chance.choice(("big", "little")))
