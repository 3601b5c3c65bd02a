"""The candle writer: puts settled trades into the table `candles`, each once.

One leader for each partition, under the lease of service "candles". Its lease gives liveness; that two
writers cannot both count a trade is due to the transaction: it holds the lease row with its own token
(I6), then the cursor, so a takeover waits for it and a writer that has been overtaken is refused.

The same money may change hands all day: a volume stays at 64 bits when it would pass them.
"""

from collections.abc import Callable, Sequence
from functools import partial

import anyio

from common.core.messages import Market
from common.core.units import MAX_INT64
from common.core.views import INTERVALS_S, Candle, PublicTrade, aggregate
from common.db import Connection
from common.lease import Lease, LeaseLost
from common.spares import Session, Spares
from daemons.market_data import metrics

SERVICE = "candles"
BATCH = 5_000
LEAST_PAUSE_S = 0.25  # At most four transactions a second for a market that keeps up.
POLL_S = 1.0  # In case that nobody wakes it.

_FENCE = """
    SELECT 1 FROM partition_leader_locks
    WHERE service = %s AND partition = %s AND fencing_token = %s FOR KEY SHARE"""
_CURSOR = "SELECT last_trade_id FROM candle_cursors WHERE market_id = %s FOR UPDATE"
_TRADES = """
    SELECT trade_id, price_ticks, qty_lots, taker_side, time_us FROM trades
    WHERE market_id = %s AND trade_id > %s ORDER BY trade_id LIMIT %s"""
_UPSERT = """
    INSERT INTO candles AS c (market_id, interval_s, open_time_us, open_ticks, high_ticks, low_ticks,
                              close_ticks, volume_lots, quote_volume_atoms, trades)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
    ON CONFLICT (market_id, interval_s, open_time_us) DO UPDATE SET
        high_ticks = greatest(c.high_ticks, excluded.high_ticks),
        low_ticks = least(c.low_ticks, excluded.low_ticks),
        close_ticks = excluded.close_ticks,
        volume_lots = least(c.volume_lots::numeric + excluded.volume_lots, 9223372036854775807),
        quote_volume_atoms =
            least(c.quote_volume_atoms::numeric + excluded.quote_volume_atoms, 9223372036854775807),
        trades = c.trades + excluded.trades"""
_MOVE = """
    INSERT INTO candle_cursors (market_id, last_trade_id) VALUES (%s, %s)
    ON CONFLICT (market_id) DO UPDATE SET last_trade_id = excluded.last_trade_id"""


class CandleWriter:
    """Leads what `share_partitions` gives it. `wake(partition)` says that trades have been settled."""

    def __init__(self, postgres_url: str, markets: Callable[[int], Sequence[Market]]) -> None:
        self._markets = markets
        self._awake: dict[int, anyio.Event] = {}
        self._sessions = Spares(partial(Session.open, postgres_url, "candles"))

    async def run(self, partitions: int) -> None:
        """Have sessions ready, until cancelled; without this a takeover is only slower."""
        await self._sessions.keep(partitions)

    def wake(self, partition: int) -> None:
        self._awake.setdefault(partition, anyio.Event()).set()

    async def lead(self, lease: Lease) -> None:
        """Write candles until cancelled; raises LeaseLost, or what PostgreSQL says."""
        async with self._sessions.session() as connection:
            await self._write(connection, lease)

    async def _write(self, connection: Connection, lease: Lease) -> None:
        while True:
            self._awake[lease.partition] = anyio.Event()
            for market in self._markets(lease.partition):
                while await write_batch(connection, lease, market) == BATCH:
                    pass
            await anyio.sleep(LEAST_PAUSE_S)
            with anyio.move_on_after(POLL_S):
                await self._awake[lease.partition].wait()


async def write_batch(connection: Connection, lease: Lease, market: Market, most: int = BATCH) -> int:
    """Put the next trades into candles; how many there were. Raises LeaseLost, having changed nothing."""
    async with connection.transaction():
        fence = await connection.execute(_FENCE, (lease.service, lease.partition, lease.token))
        if await fence.fetchone() is None:
            metrics.candle_refused.inc()
            raise LeaseLost(f"{lease.service}/{lease.partition} token {lease.token} is not the last one")
        row = await (await connection.execute(_CURSOR, (market.market_id,))).fetchone()
        found = await connection.execute(_TRADES, (market.market_id, row[0] if row else 0, most))
        trades = [_trade(market.market_id, each) for each in await found.fetchall()]
        if not trades:
            return 0
        rows = [
            _row(market.market_id, interval_s, candle)
            for interval_s in INTERVALS_S
            for candle in aggregate(trades, interval_s, market.atoms_per_tick_lot)
        ]
        async with connection.cursor() as cursor:
            await cursor.executemany(_UPSERT, rows)
        await connection.execute(_MOVE, (market.market_id, trades[-1].trade_id))
    metrics.candle_trades.inc(len(trades))
    return len(trades)


def _trade(market_id: int, row: Sequence[object]) -> PublicTrade:
    numbers = [value for value in row if isinstance(value, int)]
    assert len(numbers) == 5
    return PublicTrade(market_id, *numbers)


def _row(market_id: int, interval_s: int, candle: Candle) -> tuple[int, ...]:
    return (
        market_id,
        interval_s,
        candle.open_time_us,
        candle.open_ticks,
        candle.high_ticks,
        candle.low_ticks,
        candle.close_ticks,
        min(candle.volume_lots, MAX_INT64),
        min(candle.quote_volume_atoms, MAX_INT64),
        candle.trades,
    )
