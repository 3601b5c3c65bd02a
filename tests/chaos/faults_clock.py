"""The clock of one process is wrong: it is started by `skewed.py`, which lies to it about the time."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from tests.chaos.faults import Fault, FaultKind
from tests.chaos.world import World

_LAUNCHER = Path(__file__).with_name("skewed.py")


@dataclass(frozen=True, slots=True)
class Skew:
    """One daemon runs with a clock that is `shift_s` off, for a while; then with the right one."""

    kind: str
    pick: float
    shift_s: float
    seconds: float

    async def inject(self, world: World) -> None:
        names = world.daemons(self.kind)
        name = names[int(self.pick * len(names))]
        daemon = world.daemon(name)
        right = daemon.program
        await world.kill(name)
        python, *flags, module = [part for part in right.argv if part != "-m"]
        argv = [python, *flags, str(_LAUNCHER), str(self.shift_s), module]
        daemon.program = replace(right, argv=argv)
        world.start(name)
        try:
            await anyio.sleep(self.seconds)
            world.check_alive()
        finally:
            daemon.program = right
            with anyio.CancelScope(shield=True):
                await world.kill(name)
        world.start(name)


def _skew(kind: str) -> Callable[[random.Random], Fault]:
    return lambda rng: Skew(
        kind, round(rng.random() * 0.999, 3), rng.choice([-3600.0, 3600.0]), round(rng.uniform(4, 7), 2)
    )


KINDS = [
    FaultKind(f"wrong clock: {kind}", _skew(kind), quick=kind == "matching")
    for kind in ("gateway", "order-service", "matching", "market-data")
]
