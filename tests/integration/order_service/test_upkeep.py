"""The reaper ends what hangs and nobody else; the archive takes what is settled and nothing else."""

import time
from collections.abc import Sequence

import anyio
import psycopg
import pytest

from common import db
from common.core import messages as m
from daemons.order_service import upkeep
from tests.integration.order_service.committing import until, until_blocked
from tests.integration.order_service.desk import Desk, limit

pytestmark = pytest.mark.anyio

PRICE, LOTS = 5_000_000, 1_000

_OLDEST = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s
  AND xact_start < clock_timestamp() - interval '2.1 s'
"""


class HungCopy:
    """A client that has locked the user, begun a COPY and gone to sleep."""

    def __init__(self) -> None:
        self.began_s = 0.0
        self.ended_s = 0.0

    async def run(self, url: str, user: int, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with db.connect(url, "order-service tx1") as connection:
            self.began_s = time.monotonic()
            await connection.execute("BEGIN")
            await connection.execute("SELECT 1 FROM users WHERE user_id = %s FOR UPDATE", [user])
            with pytest.raises(psycopg.OperationalError):
                await self._copy(connection, task_status)

    async def _copy(self, connection: db.Connection, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with connection.cursor() as cursor, cursor.copy("COPY orders FROM STDIN") as copy:
            task_status.started()
            # Hangs: nothing is sent and nothing is read, but the end of the connection is seen.
            await anyio.wait_readable(connection.fileno())
            self.ended_s = time.monotonic()
            await copy.write(b"")
            await connection.execute("SELECT 1")


async def test_a_copy_that_hangs_is_ended_in_time_and_who_waits_for_it_goes_on(desk: Desk) -> None:
    user, other = await desk.user(), await desk.user()
    hung = HungCopy()
    async with db.pool(desk.url, name="order-service") as pool, anyio.create_task_group() as group:
        group.start_soon(upkeep.reap, pool)
        await group.start(hung.run, desk.url, user)
        await desk.place(limit(other, m.Side.BUY, PRICE, LOTS))  # Not in its way.
        await desk.place(limit(user, m.Side.BUY, PRICE, LOTS))
        assert hung.ended_s
        group.cancel_scope.cancel()
    assert hung.ended_s - hung.began_s < upkeep.HUNG_S + upkeep.REAP_EVERY_S + 1.0
    await desk.run(0)
    await desk.check_money()


async def test_who_waits_for_a_lock_is_not_hung_however_old(desk: Desk) -> None:
    user = await desk.user()
    hung = HungCopy()
    async with db.pool(desk.url, name="order-service") as pool, anyio.create_task_group() as group:
        await group.start(hung.run, desk.url, user)
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(desk.place, limit(user, m.Side.BUY, PRICE, LOTS))
            await until_blocked(desk)

            async def both_are_old() -> bool:
                return await desk.rows(_OLDEST, "order-service tx1") == [(2,)]

            await until(both_are_old)
            group.start_soon(upkeep.reap, pool)
        group.cancel_scope.cancel()
    assert await desk.rows("SELECT count(*) FROM orders") == [(1,)]


async def test_sessions_of_others_may_take_their_time(desk: Desk) -> None:
    async with db.pool(desk.url, name="order-service") as pool, anyio.create_task_group() as group:
        backup = await psycopg.AsyncConnection.connect(desk.url, application_name="backup")
        async with backup:
            await backup.execute("SELECT 1")

            async def is_old() -> bool:
                return await desk.rows(_OLDEST, "backup") == [(1,)]

            await until(is_old)
            async with pool.connection() as connection:
                await connection.execute(upkeep._REAP, [upkeep.HUNG_S])
            await backup.execute("SELECT 1")
        group.cancel_scope.cancel()


async def _batches(desk: Desk, table: str) -> Sequence[tuple[int, ...]]:
    return await desk.rows(f"SELECT partition, first_sequence FROM {table} ORDER BY 1, 2")


async def test_only_what_is_settled_is_archived(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "ARCHIVE_ROWS", 2)
    monkeypatch.setattr(upkeep, "ARCHIVE_EVERY_S", 0.01)
    user = await desk.user()
    for _ in range(5):
        await desk.place(limit(user, m.Side.BUY, PRICE, LOTS))
    await desk.run(0)
    settled = await _batches(desk, "outbox")
    for symbol in ("BTC-USD", "ETH-USD"):
        await desk.place(limit(user, m.Side.SELL, 2 * PRICE, LOTS, symbol=symbol))
    waiting = [batch for batch in await _batches(desk, "outbox") if batch not in settled]
    assert len(waiting) == 2

    async def all_moved() -> bool:
        return len(await _batches(desk, "outbox_archive")) >= len(settled)

    async with db.pool(desk.url, name="order-service") as pool, anyio.create_task_group() as group:
        group.start_soon(upkeep.archive, pool)
        await until(all_moved)
        assert await _batches(desk, "outbox_archive") == settled
        assert await _batches(desk, "outbox") == waiting
        for partition in (0, 1):
            await desk.run(partition)

        async def none_left() -> bool:
            return await _batches(desk, "outbox") == []

        await until(none_left)
        group.cancel_scope.cancel()
    assert await _batches(desk, "outbox_archive") == sorted([*settled, *waiting])
    await desk.check_money()


async def test_a_transaction_that_keeps_the_server_busy_is_not_hung(desk: Desk) -> None:
    """As the TX2 of a huge sweep does: ended, it would be begun again for ever."""
    async with (
        db.pool(desk.url, name="order-service") as pool,
        db.connect(desk.url, "order-service tx2 0") as busy,
        anyio.create_task_group() as group,
    ):
        group.start_soon(upkeep.reap, pool)
        async with busy.transaction():
            for _ in range(3):
                await busy.execute("SELECT pg_sleep(1.2)")
        group.cancel_scope.cancel()
