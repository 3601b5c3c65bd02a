"""A committer at work, and the means to stop its transaction where the test wants it."""

import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import anyio
import psycopg

from common import db
from daemons.order_service.committer import Committer
from daemons.order_service.relay import Relays
from tests.integration.order_service.desk import Desk

WITHIN_S = 15.0

_WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'order-service %%' AND wait_event_type = 'Lock'
"""


@asynccontextmanager
async def committing(
    desk: Desk, *, url: str = "", batch_requests: int = 1_000, queue_requests: int = 10_000
) -> AsyncIterator[Committer]:
    """A committer while the body runs; leaving waits until everything is answered."""
    committer = Committer(
        url or desk.url,
        desk.markets,
        Relays(4),
        batch_requests=batch_requests,
        queue_requests=queue_requests,
    )
    async with anyio.create_task_group() as group:
        await group.start(committer.run)
        yield committer
        committer.finish()


@asynccontextmanager
async def locked(url: str, user_id: int = 0) -> AsyncIterator[None]:
    """Nobody else gets past the user's row (0: past the first lock of the shards) while the body runs."""
    connection = await psycopg.AsyncConnection.connect(url, application_name="test")
    async with connection:
        if user_id:
            await connection.execute("SELECT 1 FROM users WHERE user_id = %s FOR UPDATE", [user_id])
        else:
            await connection.execute("SELECT 1 FROM shards FOR UPDATE")
        yield


async def until_blocked(desk: Desk, sessions: int = 1) -> None:
    """Until that many sessions of the order-service wait for a lock."""

    async def blocked() -> bool:
        return (await desk.rows(_WAITING))[0][0] >= sessions

    await until(blocked)


async def until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Until the condition holds; raises TimeoutError when it does not within `WITHIN_S`."""
    with anyio.fail_after(WITHIN_S):
        while not await condition():
            await anyio.sleep(0.01)


async def terminate_now_and_then(desk: Desk, draw: random.Random, name: str) -> None:
    """End the sessions of this name at random moments, until canceled.

    From a session of its own, since canceling a query closes its session. Some pauses are long: on a slow
    machine a transaction must get through now and then.
    """
    async with db.connect(desk.url, "test terminator") as connection:
        while True:
            await anyio.sleep(draw.uniform(0.0, draw.choice([0.02, 0.02, 0.02, 0.4])))
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = %s AND xact_start IS NOT NULL",
                [name],
            )
