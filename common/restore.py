"""The engine's state at the watermark, read in one snapshot of the database (I8).

TX1 never changes a column that is read here, so orders above the watermark do not disturb: they are
ACCEPTED still, and come with the batches that follow.
"""

from dataclasses import dataclass, replace

from psycopg.rows import args_row

from common.admin import list_markets
from common.core.messages import LiveOrder, MarketState, MarketStatus, Side, Snapshot
from common.db import Connection
from common.snapshot import prefer_whole_tables

_WATERMARK = (
    "SELECT sequence, chain, time_us, engine_version, orders_offset FROM watermarks WHERE partition = %s"
)
_STATES = """
SELECT market_id, status, maker_fee_bps, taker_fee_bps, next_trade_id, last_price_ticks
FROM market_states WHERE partition = %s ORDER BY market_id
"""
# `live` for its index: OPEN and PARTIALLY_FILLED; by priority, so that each goes to the end of its queue.
_LIVE = """
SELECT order_id, user_id, market_id, coalesce(client_order_id, ''), side, price_ticks, qty_lots, filled_lots,
       filled_quote_atoms, fee_atoms, held_atoms, sequence
FROM orders WHERE partition = %s AND live AND status IN (2, 3)
ORDER BY market_id, side, price_ticks, sequence
"""
# A partition can have a million live orders. They come in pieces, so that neither the loop stands still for
# seconds nor the rows stand beside the orders in memory. Between two pieces another partition may compute for
# longer than a transaction of the exchange may idle; who only reads stands in nobody's way.
_PIECE = 20_000
_PREPARE = "SET LOCAL work_mem = '256MB'", "SET LOCAL idle_in_transaction_session_timeout = '600s'"
_SIDES = {int(side): side for side in Side}


@dataclass(frozen=True, slots=True)
class Restored:
    """`orders_offset` is a hint: where the batch at the watermark lay in exchange.orders; -1: none."""

    snapshot: Snapshot
    orders_offset: int

    @property
    def has_hint(self) -> bool:
        return self.snapshot.sequence > 0 and self.orders_offset >= 0

    def start(self, earliest: int, end: int) -> int:
        """Where to begin to read: at the batch at the watermark, to see that it is the one."""
        return self.orders_offset if self.has_hint and self.orders_offset < end else earliest


async def read_watermark(connection: Connection, partition: int) -> tuple[int, bytes]:
    cursor = await connection.execute(
        "SELECT sequence, chain FROM watermarks WHERE partition = %s", [partition]
    )
    row = await cursor.fetchone()
    assert row is not None, f"partition {partition} does not exist"
    return int(row[0]), bytes(row[1])


async def restore(connection: Connection, partition: int) -> Restored:
    """Everything that the engine of one partition knows at the watermark."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return await restore_within(connection, partition)


async def restore_within(connection: Connection, partition: int) -> Restored:
    """The same in the transaction of the caller, which sees one snapshot."""
    row = await (await connection.execute(_WATERMARK, [partition])).fetchone()
    assert row is not None, f"partition {partition} does not exist"
    states = [
        MarketState(state[0], MarketStatus(state[1]), *state[2:])
        for state in await (await connection.execute(_STATES, [partition])).fetchall()
    ]
    known = {market.market_id: market for market, _ in await list_markets(connection)}
    live = await _read_live_orders(connection, partition)
    sequence, chain, time_us, engine_version, orders_offset = row
    snapshot = Snapshot(
        partition=partition,
        sequence=sequence,
        chain=chain,
        time_us=time_us,
        engine_version=engine_version,
        # A market that the engine has not been told of yet comes with its command.
        markets=[
            replace(
                known[state.market_id],
                status=state.status,
                maker_fee_bps=state.maker_fee_bps,
                taker_fee_bps=state.taker_fee_bps,
            )
            for state in states
        ],
        states=states,
        orders=live,
    )
    return Restored(snapshot, orders_offset)


async def _read_live_orders(connection: Connection, partition: int) -> list[LiveOrder]:
    orders: list[LiveOrder] = []
    await prefer_whole_tables(connection)
    for setting in _PREPARE:
        await connection.execute(setting)
    async with connection.cursor("live_orders", row_factory=args_row(_live_order)) as cursor:
        await cursor.execute(_LIVE, [partition], binary=True)
        while piece := await cursor.fetchmany(_PIECE):
            orders += piece
    return orders


def _live_order(
    order_id: int,
    user_id: int,
    market_id: int,
    client_order_id: str,
    side: int,
    price_ticks: int,
    qty_lots: int,
    filled_lots: int,
    filled_quote_atoms: int,
    fee_atoms: int,
    held_atoms: int,
    sequence: int,
) -> LiveOrder:
    return LiveOrder(
        order_id,
        user_id,
        market_id,
        client_order_id,
        _SIDES[side],
        price_ticks,
        qty_lots,
        filled_lots,
        filled_quote_atoms,
        fee_atoms,
        held_atoms,
        sequence,
    )
