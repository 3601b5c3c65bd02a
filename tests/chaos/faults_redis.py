"""Faults of Valkey: flushed, down, killed. Trading goes on; what is degraded is said."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import redis
from anyio import to_thread

from tests.chaos.faults import Fault, FaultKind
from tests.chaos.servers import own
from tests.chaos.world import ChaosFailure, World

NEEDS = frozenset({"valkey"})
_NOTICED_S = 10.0


@dataclass(frozen=True, slots=True)
class Flush:
    """FLUSHALL: every limit, every idempotency key and every snapshot in it is gone."""

    times: int

    async def inject(self, world: World) -> None:
        for _ in range(self.times):
            await to_thread.run_sync(_flush, own(world, "valkey").url)
            await anyio.sleep(0.3)


@dataclass(frozen=True, slots=True)
class Down:
    """kill -9, and a start after `down_s`. The gateway takes orders meanwhile, and says what is missing."""

    down_s: float

    async def inject(self, world: World) -> None:
        server = own(world, "valkey")
        await server.kill()
        try:
            await anyio.sleep(min(self.down_s, _NOTICED_S))
            await to_thread.run_sync(_must_be_said, world)
            await anyio.sleep(max(0.0, self.down_s - _NOTICED_S))
        finally:
            with anyio.CancelScope(shield=True):
                await server.start()


def _flush(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushall()


def _must_be_said(world: World) -> None:
    """Orders are taken; each market-data's readiness and metrics, and each gateway's, say what is missing."""
    if not world.exchange.is_ready():
        raise ChaosFailure("not ready while only Valkey is down")
    for name in world.daemons("market-data"):
        base = f"http://127.0.0.1:{world.exchange.ports.health[name]}"
        ready = world.exchange.http.get(f"{base}/readyz")
        if ready.status_code != 200 or ready.json()["parts"]["redis"]["ok"]:
            raise ChaosFailure(f"{name}, with Valkey down: {ready.status_code} {ready.text}")
        if 'exchange_part_ok{part="redis"} 0' not in world.exchange.http.get(f"{base}/metrics").text:
            raise ChaosFailure(f"the metrics of {name} do not say that Valkey is down")
    for name in world.daemons("gateway"):
        if world.exchange.metrics(name)["exchange_limits_degraded"] != 1:
            raise ChaosFailure(f"the metrics of {name} do not say that it limits by itself")


def _flushed(rng: random.Random) -> Fault:
    return Flush(rng.randint(1, 5))


def _down(down_s: float) -> Callable[[random.Random], Fault]:
    return lambda _rng: Down(down_s)


KINDS = [
    FaultKind("Valkey flushed", _flushed, NEEDS, quick=True),
    FaultKind("Valkey down for 8 s", _down(8.0), NEEDS, quick=True),
    FaultKind("Valkey down for a minute", _down(60.0), NEEDS),
]
