"""Faults of PostgreSQL: restarted, killed, frozen, its sessions ended one by one."""

import random
from dataclasses import dataclass

import anyio
import psycopg

from common import db
from tests.chaos.faults import Fault, FaultKind
from tests.chaos.servers import freeze_for, own
from tests.chaos.world import World

NEEDS = frozenset({"postgres"})

# The exchange's own sessions; who judges it is left alone.
_SESSIONS = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
  AND application_name NOT LIKE 'chaos%%' AND application_name NOT LIKE 'exchange %%'
ORDER BY backend_start, pid
"""


@dataclass(frozen=True, slots=True)
class Restart:
    """Its fast shutdown, which ends all sessions at once, and a start after a while."""

    down_s: float

    async def inject(self, world: World) -> None:
        await own(world, "postgres").stop()
        await anyio.sleep(self.down_s)
        await own(world, "postgres").start()


@dataclass(frozen=True, slots=True)
class Kill:
    """kill -9; of the postmaster alone, so that its backends linger, or of all. It recovers from its log."""

    down_s: float
    first_alone: bool

    async def inject(self, world: World) -> None:
        server = own(world, "postgres")
        if self.first_alone:
            await server.kill_first()
        else:
            await server.kill()
        await anyio.sleep(self.down_s)
        await server.start()


@dataclass(frozen=True, slots=True)
class Freeze:
    """SIGSTOP to the postmaster and all backends: connections stay, and nobody answers."""

    frozen_s: float

    async def inject(self, world: World) -> None:
        await freeze_for(own(world, "postgres"), self.frozen_s)


@dataclass(frozen=True, slots=True)
class EndSessions:
    """pg_terminate_backend for the sessions there are, one after the other, in an order of its own."""

    seed: int
    pause_s: float
    most: int = 60

    async def inject(self, world: World) -> None:
        rng = random.Random(self.seed)
        ended = 0
        async with db.connect(world.exchange.settings.postgres_url, "chaos sessions") as connection:
            found = [row[0] for row in await (await connection.execute(_SESSIONS)).fetchall()]
            rng.shuffle(found)
            for pid in found[: self.most]:
                try:
                    await connection.execute("SELECT pg_terminate_backend(%s)", [pid])
                except psycopg.errors.InsufficientPrivilege:
                    continue
                ended += 1
                await anyio.sleep(self.pause_s)
        world.note(f"{ended} sessions ended")


def _restart(rng: random.Random) -> Fault:
    return Restart(round(rng.uniform(0, 3), 2))


def _kill(rng: random.Random) -> Fault:
    return Kill(round(rng.uniform(0, 2), 2), first_alone=False)


def _kill_first(rng: random.Random) -> Fault:
    return Kill(round(rng.uniform(0, 0.5), 2), first_alone=True)


def _freeze(rng: random.Random) -> Fault:
    return Freeze(round(rng.uniform(1, 5), 2))


def _end_sessions(rng: random.Random) -> Fault:
    return EndSessions(rng.randrange(1 << 30), round(rng.uniform(0.01, 0.2), 3))


KINDS = [
    FaultKind("PostgreSQL restarted", _restart, NEEDS, quick=True),
    FaultKind("kill -9 PostgreSQL", _kill, NEEDS, quick=True),
    FaultKind("kill -9 of PostgreSQL's postmaster", _kill_first, NEEDS),
    FaultKind("SIGSTOP PostgreSQL", _freeze, NEEDS, quick=True),
    FaultKind("PostgreSQL's sessions ended one by one", _end_sessions, NEEDS, quick=True),
]
