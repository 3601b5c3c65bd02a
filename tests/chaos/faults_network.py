"""Faults of the network between the daemons and each server, and processes stopped at a chosen byte."""

import os
import random
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import anyio
import psutil
from anyio import to_thread

from tests.chaos.faults import Fault, FaultKind
from tests.chaos.servers import proxy_of
from tests.chaos.world import World

NEEDS = frozenset({"proxies"})
SERVERS = ("postgres", "kafka", "valkey")
_SEEN_WITHIN_S = 8.0


@dataclass(frozen=True, slots=True)
class Drop:
    """Nothing gets through to these servers, and nobody is told; connections stay."""

    servers: tuple[str, ...]
    seconds: float

    async def inject(self, world: World) -> None:
        proxies = [proxy_of(world, name) for name in self.servers]
        with ExitStack() as healing:
            for proxy in proxies:
                healing.callback(proxy.heal)
                proxy.drop(True)
            await anyio.sleep(self.seconds)


@dataclass(frozen=True, slots=True)
class Delay:
    """Every chunk is late, in both directions."""

    server: str
    delay_s: float
    seconds: float

    async def inject(self, world: World) -> None:
        proxy = proxy_of(world, self.server)
        proxy.delay(self.delay_s)
        try:
            await anyio.sleep(self.seconds)
        finally:
            proxy.heal()


@dataclass(frozen=True, slots=True)
class Cut:
    """All connections to a server are reset at once, a few times."""

    server: str
    times: int
    pause_s: float

    async def inject(self, world: World) -> None:
        for _ in range(self.times):
            world.note(f"{proxy_of(world, self.server).cut()} connections to {self.server} cut")
            await anyio.sleep(self.pause_s)


@dataclass(frozen=True, slots=True)
class CutOneByOne:
    server: str
    seed: int
    times: int
    pause_s: float

    async def inject(self, world: World) -> None:
        rng = random.Random(self.seed)
        for _ in range(self.times):
            proxy_of(world, self.server).cut_one(rng)
            await anyio.sleep(self.pause_s)


@dataclass(frozen=True, slots=True)
class Halve:
    """Of the next chunk on each connection, either way, half arrives; then it is reset."""

    server: str
    seconds: float

    async def inject(self, world: World) -> None:
        proxy = proxy_of(world, self.server)
        world.note(f"{proxy.halve()} connections to {self.server} halved")
        try:
            await anyio.sleep(self.seconds)
        finally:
            proxy.heal()


@dataclass(frozen=True, slots=True)
class Duplicate:
    """What each client says next reaches the server twice, the second time on another connection."""

    server: str
    times: int
    pause_s: float

    async def inject(self, world: World) -> None:
        proxy = proxy_of(world, self.server)
        try:
            for _ in range(self.times):
                proxy.duplicate()
                await anyio.sleep(self.pause_s)
        finally:
            proxy.heal()


@dataclass(frozen=True, slots=True)
class StopInside:
    """SIGSTOP of the order-service whose transaction says `says` next, before PostgreSQL hears it.

    Whoever says it first is stopped, so that it holds its locks until they are taken from it. With nothing
    to wait for, at whatever the session says next: of a prepared COMMIT only a number is seen.
    """

    session: str
    says: str
    frozen_s: float

    async def inject(self, world: World) -> None:
        proxy = proxy_of(world, "postgres")
        pids = {world.daemon(name).pid: name for name in world.daemons("order-service")}
        stopped: list[int] = []

        def watch(greeting: bytes, chunk: bytes, port: int) -> bool:
            if self.session.encode() not in greeting or self.says.encode() not in chunk:
                return False
            pid = _whose(port, pids)
            if pid is not None:
                stopped.append(pid)
            return pid is not None

        with proxy.watching(watch, lambda: os.kill(stopped[0], signal.SIGSTOP)) as seen:
            came = await to_thread.run_sync(seen.wait, _SEEN_WITHIN_S)
        try:
            if came:
                await anyio.sleep(self.frozen_s)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        who = pids[stopped[0]] if stopped else "nobody"
        world.note(f"{who} was stopped at {self.says!r}")


def _whose(port: int, pids: dict[int, str]) -> int | None:
    """Which of the processes has a connection from this port."""
    for pid in pids:
        if any(one.laddr and one.laddr.port == port for one in psutil.Process(pid).net_connections("tcp")):
            return pid
    return None


def _drop(*servers: str) -> Callable[[random.Random], Fault]:
    return lambda rng: Drop(servers, round(rng.uniform(1, 5), 2))


def _delay(server: str) -> Callable[[random.Random], Fault]:
    return lambda rng: Delay(server, round(rng.uniform(0.005, 0.15), 3), round(rng.uniform(2, 5), 2))


def _cut(server: str) -> Callable[[random.Random], Fault]:
    return lambda rng: Cut(server, rng.randint(1, 5), round(rng.uniform(0.1, 1.0), 2))


def _one_by_one(server: str) -> Callable[[random.Random], Fault]:
    return lambda rng: CutOneByOne(
        server, rng.randrange(1 << 30), rng.randint(5, 40), round(rng.uniform(0.02, 0.2), 3)
    )


def _halve(server: str) -> Callable[[random.Random], Fault]:
    return lambda rng: Halve(server, round(rng.uniform(1, 3), 2))


def _duplicate(server: str) -> Callable[[random.Random], Fault]:
    return lambda rng: Duplicate(server, rng.randint(2, 20), round(rng.uniform(0.05, 0.3), 3))


def _stop_inside(session: str, says: str) -> Callable[[random.Random], Fault]:
    return lambda rng: StopInside(session, says, round(rng.uniform(0.5, 6), 2))


def _kinds() -> list[FaultKind]:
    kinds = []
    for server in SERVERS:
        quick = server != "valkey"
        kinds += [
            FaultKind(f"network drops: {server}", _drop(server), NEEDS, quick=quick),
            FaultKind(f"network delays: {server}", _delay(server), NEEDS, quick=server == "postgres"),
            FaultKind(f"network cuts: {server}", _cut(server), NEEDS, quick=quick),
            FaultKind(f"network cuts one by one: {server}", _one_by_one(server), NEEDS),
            FaultKind(f"network halves: {server}", _halve(server), NEEDS, quick=quick),
            FaultKind(f"network duplicates: {server}", _duplicate(server), NEEDS, quick=server == "kafka"),
        ]
    return kinds


KINDS = [
    *_kinds(),
    FaultKind("network drops everything", _drop(*SERVERS), NEEDS),
    FaultKind("SIGSTOP inside COPY", _stop_inside("order-service tx1", "FROM STDIN"), NEEDS, quick=True),
    FaultKind("SIGSTOP inside TX1", _stop_inside("order-service tx1", "COMMIT"), NEEDS, quick=True),
    FaultKind("SIGSTOP inside TX2", _stop_inside("order-service tx2", ""), NEEDS),
    FaultKind("SIGSTOP inside the relay", _stop_inside("order-service relay", ""), NEEDS),
]
