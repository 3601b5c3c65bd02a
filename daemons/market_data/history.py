"""What PostgreSQL knows of trades: the start of a tape and its candles, and trades that were missed."""

from collections.abc import Sequence
from typing import cast

import psycopg

from common.core.views import INTERVALS_S, Candle, PublicTrade
from common.db import Connection, Pool
from daemons.market_data.feed import CANDLES, TAPE, History

PAGE = 5_000

_TRADE = "market_id, trade_id, price_ticks, qty_lots, taker_side, time_us"
_CANDLES = """
    SELECT open_time_us, open_ticks, high_ticks, low_ticks, close_ticks,
           volume_lots, quote_volume_atoms, trades
    FROM candles WHERE market_id = %s AND interval_s = %s
    ORDER BY open_time_us DESC LIMIT %s"""
_CURSOR = "SELECT last_trade_id FROM candle_cursors WHERE market_id = %s"
_TAPE = f"""
    SELECT {_TRADE} FROM trades WHERE market_id = %s AND trade_id <= %s
    ORDER BY trade_id DESC LIMIT %s"""  # noqa: S608 - columns, not input
_BETWEEN = f"""
    SELECT {_TRADE} FROM trades WHERE market_id = %s AND trade_id BETWEEN %s AND %s
    ORDER BY trade_id LIMIT %s"""  # noqa: S608 - columns, not input

_NEWEST = (1 << 63) - 1


async def load(pool: Pool, market_id: int) -> History:
    """The stored candles, the trades that are not in them yet, and the tape up to the last of those."""
    async with pool.connection() as connection:
        async with connection.transaction():
            # One snapshot, so that the candles end exactly where the cursor says.
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            candles = {interval: await _candles(connection, market_id, interval) for interval in INTERVALS_S}
            cursor = await (await connection.execute(_CURSOR, (market_id,))).fetchone()
        after = cast(int, cursor[0]) if cursor else 0
        later: list[PublicTrade] = []
        while page := await _between(connection, market_id, after + 1, _NEWEST):
            later += page
            after = page[-1].trade_id
        rows = await (await connection.execute(_TAPE, (market_id, after, TAPE))).fetchall()
        return History(candles, later, [_trade(row) for row in reversed(rows)])


async def missed_trades(pool: Pool, market_id: int, first: int, last: int) -> Sequence[PublicTrade]:
    """Those of the trades first..last that are settled, at most PAGE of them, oldest first."""
    async with pool.connection() as connection:
        return await _between(connection, market_id, first, last)


async def _between(connection: Connection, market_id: int, first: int, last: int) -> list[PublicTrade]:
    cursor = await connection.execute(_BETWEEN, (market_id, first, last, PAGE))
    return [_trade(row) for row in await cursor.fetchall()]


async def _candles(connection: Connection, market_id: int, interval_s: int) -> list[Candle]:
    cursor = await connection.execute(_CANDLES, (market_id, interval_s, CANDLES))
    return [
        Candle(*cast("tuple[int, int, int, int, int, int, int, int]", row))
        for row in reversed(await cursor.fetchall())
    ]


def _trade(row: tuple[object, ...]) -> PublicTrade:
    return PublicTrade(*cast("tuple[int, int, int, int, int, int]", row))


Unreachable = (psycopg.Error, OSError)
