"""What a fault is, and the registry of all kinds.

A fault does harm and heals it: when `inject` returns, every server and every daemon runs again, nothing
is frozen, and no proxy is in the way. Whether the exchange has recovered is the runner's question, asked
afterwards; so is how long trading stopped. The parameters are drawn before the run, from the run's seed,
and `str` of the fault shows them: a dataclass does both.

    @dataclass(frozen=True, slots=True)
    class Restart:
        down_s: float

        async def inject(self, world: World) -> None:
            await world.servers["postgres"].stop()
            await anyio.sleep(self.down_s)
            await world.servers["postgres"].start()

    KINDS = [FaultKind("PostgreSQL restarted", draw_restart, needs={"postgres"}, quick=True)]
"""

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol

from tests.chaos.world import World

_MODULES = ("processes", "postgres", "kafka", "redis", "network", "records", "clock")


class Fault(Protocol):
    async def inject(self, world: World) -> None:
        """Do it and heal it. Raises ChaosFailure for what must not be, e.g. a refusal that nobody counted."""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One row of the report. `draw` takes every parameter from the generator that it is given.

    `needs` names what the world must have (`World.has`): "postgres", "kafka", "valkey" for servers of its
    own, "proxies". `quick`: in the short round of `make test`, where inject and recovery take < 10 s.
    `weight`: how often it comes in one cycle through all kinds.
    """

    name: str
    draw: Callable[[random.Random], Fault]
    needs: Collection[str] = field(default=frozenset())
    quick: bool = False
    weight: int = 1


def all_kinds() -> list[FaultKind]:
    """Every kind there is, in an order that does not change between runs."""
    kinds: list[FaultKind] = []
    for subject in _MODULES:
        if find_spec(f"tests.chaos.faults_{subject}") is not None:
            kinds += import_module(f"tests.chaos.faults_{subject}").KINDS
    assert len({kind.name for kind in kinds}) == len(kinds)
    return kinds
