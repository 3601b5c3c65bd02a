"""The sequence of faults, from one seed: the same seed, the same faults in the same order.

Every kind comes once in each cycle, as often as its weight says: decks are shuffled, nothing is left to
luck. When the next fault begins depends on how long the exchange took to recover from the one before, so
the schedule says how long to wait after that.
"""

import random
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple

from tests.chaos.faults import Fault, FaultKind

_CALM_S = (0.5, 2.5)


class Step(NamedTuple):
    """`calm_s`: seconds of undisturbed trading before it."""

    number: int
    calm_s: float
    kind: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.number:4}. after {self.calm_s:.1f} s: {self.kind}: {self.fault}"


def schedule(seed: int, kinds: Sequence[FaultKind]) -> Iterator[Step]:
    """Without an end."""
    rng = random.Random(f"{seed}/schedule")
    numbers = count(1)
    while True:
        deck = [kind for kind in kinds for _ in range(kind.weight)]
        rng.shuffle(deck)
        for kind in deck:
            yield Step(next(numbers), round(rng.uniform(*_CALM_S), 1), kind.name, kind.draw(rng))


def one_cycle(seed: int, kinds: Sequence[FaultKind]) -> list[Step]:
    return list(islice(schedule(seed, kinds), sum(kind.weight for kind in kinds)))
