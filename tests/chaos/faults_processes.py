"""Faults of the exchange's own processes: killed, frozen, drained; alone, in pairs, all at once."""

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from tests.chaos.faults import Fault, FaultKind
from tests.chaos.world import World

DAEMONS = ("gateway", "order-service", "matching", "market-data")


def _some(world: World, kind: str, pick: float) -> str:
    """One of the daemons of a kind; `pick` in 0 .. 1 was drawn when nobody knew how many there are."""
    names = world.daemons(kind)
    return names[int(pick * len(names))]


@dataclass(frozen=True, slots=True)
class Kill:
    """kill -9 of one daemon of each of `kinds`, in the same moment; started again after a while."""

    kinds: tuple[str, ...]
    pick: float
    down_s: float

    async def inject(self, world: World) -> None:
        names = [_some(world, kind, self.pick) for kind in self.kinds]
        await world.kill(*names)
        await anyio.sleep(self.down_s)
        world.start(*names)


@dataclass(frozen=True, slots=True)
class KillAll:
    """kill -9 of every daemon of `kinds` in the same moment; none of it is left."""

    kinds: tuple[str, ...]
    down_s: float

    async def inject(self, world: World) -> None:
        names = world.daemons(*self.kinds)
        await world.kill(*names)
        await anyio.sleep(self.down_s)
        world.start(*names)


@dataclass(frozen=True, slots=True)
class KillInSequence:
    """One daemon after the other, whoever is next, as fast as they come up again or faster."""

    picks: tuple[float, ...]
    pause_s: float

    async def inject(self, world: World) -> None:
        for pick in self.picks:
            name = world.daemons()[int(pick * len(world.daemons()))]
            await world.kill(name)
            world.start(name)
            await anyio.sleep(self.pause_s)


@dataclass(frozen=True, slots=True)
class Freeze:
    """SIGSTOP of one daemon, or of all of its kind, and SIGCONT after a while."""

    kind: str
    pick: float
    frozen_s: float
    whole_kind: bool = False

    async def inject(self, world: World) -> None:
        names = world.daemons(self.kind) if self.whole_kind else [_some(world, self.kind, self.pick)]
        world.signal(signal.SIGSTOP, *names)
        await anyio.sleep(self.frozen_s)
        world.signal(signal.SIGCONT, *names)


@dataclass(frozen=True, slots=True)
class Drain:
    """SIGTERM in the middle of everything; it must end well, and is started again."""

    kind: str
    pick: float

    async def inject(self, world: World) -> None:
        name = _some(world, self.kind, self.pick)
        await world.drain(name)
        world.start(name)


@dataclass(frozen=True, slots=True)
class DrainAll:
    """SIGTERM to every process of the exchange at the same time."""

    async def inject(self, world: World) -> None:
        await world.drain(*world.daemons())
        world.start(*world.daemons())


def _kill(*kinds: str) -> Callable[[random.Random], Fault]:
    return lambda rng: Kill(kinds, _pick(rng), _round(rng.uniform(0, 1.5)))


def _freeze(
    kind: str, longest_s: float = 5.0, *, whole_kind: bool = False
) -> Callable[[random.Random], Fault]:
    return lambda rng: Freeze(kind, _pick(rng), _round(rng.uniform(0.5, longest_s)), whole_kind)


def _drain(kind: str) -> Callable[[random.Random], Fault]:
    return lambda rng: Drain(kind, _pick(rng))


def _pick(rng: random.Random) -> float:
    return _round(rng.random() * 0.999)


def _round(number: float) -> float:
    """Shown whole, so that the schedule that is printed is the schedule that runs."""
    return round(number, 3)


KINDS = [
    *(FaultKind(f"kill -9 {kind}", _kill(kind), quick=True) for kind in DAEMONS),
    FaultKind("kill -9 of a pair", lambda rng: _kill(*rng.sample(DAEMONS, 2))(rng)),
    FaultKind("kill -9 of order-service and matching", _kill("order-service", "matching"), quick=True),
    FaultKind(
        "kill -9 of every matching", lambda rng: KillAll(("matching",), _round(rng.uniform(0, 1))), quick=True
    ),
    FaultKind(
        "kill -9 of every order-service", lambda rng: KillAll(("order-service",), _round(rng.uniform(0, 1)))
    ),
    FaultKind("kill -9 of every daemon", lambda rng: KillAll(DAEMONS, _round(rng.uniform(0, 1)))),
    FaultKind(
        "kill -9 in random sequence",
        lambda rng: KillInSequence(
            tuple(_pick(rng) for _ in range(rng.randint(6, 12))), _round(rng.uniform(0.3, 2.0))
        ),
    ),
    *(FaultKind(f"SIGSTOP {kind}", _freeze(kind), quick=kind == "matching") for kind in DAEMONS),
    FaultKind("SIGSTOP of every matching", _freeze("matching", whole_kind=True)),
    FaultKind("SIGSTOP of every order-service", _freeze("order-service", whole_kind=True)),
    *(FaultKind(f"SIGTERM {kind}", _drain(kind), quick=kind == "order-service") for kind in DAEMONS),
    FaultKind("SIGTERM of every daemon", lambda _: DrainAll()),
]
