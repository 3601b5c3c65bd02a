"""What a user may ask about themselves. Every statement names the user, so nobody sees another's rows."""

from collections.abc import Iterable

from psycopg.rows import TupleRow

from common.core.errors import Malformed, OrderNotFound
from common.core.messages import Liquidity, Side
from common.db import Pool
from daemons.order_service.markets import Markets
from daemons.order_service.testers import balances
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as types

DEFAULT_LIMIT, MOST = 100, 1_000
MAX_INT64 = (1 << 63) - 1

_ORDER = """
SELECT order_id, client_order_id, user_id, market_id, side, type, time_in_force, post_only, stp, price_ticks,
       qty_lots, quote_atoms, filled_lots, filled_quote_atoms, fee_atoms, status, reason, sequence,
       created_us, updated_us
FROM orders
"""
_ONE = _ORDER + "WHERE order_id = %s AND user_id = %s"
# A filter that is not asked for is left out, so that each statement has a plan of its own: with all of
# them in one, a user's whole history is read to find the few orders that live.
_FILTERS = {
    "market": "AND market_id = %(market)s",
    "status": "AND status = %(status)s",
    "client": "AND client_order_id = %(client)s",
    "live": "AND status <= 3",
}
_OWN = _ORDER + "WHERE user_id = %(user)s AND order_id < %(before)s"
_NEWEST = "ORDER BY order_id DESC LIMIT %(limit)s"
# Each side by its own index from the newest on; what stands before the cursor is not read.
_SIDE = """
    (SELECT * FROM trades
     WHERE {side}_user_id = %(user)s AND time_us <= %(time)s
       AND (time_us, market_id, trade_id) < (%(time)s, %(after_market)s, %(trade)s)
       AND (%(market)s::int IS NULL OR market_id = %(market)s)
     ORDER BY time_us DESC, market_id DESC, trade_id DESC LIMIT %(limit)s)
"""
_FILLS = f"""
SELECT trade_id, market_id, price_ticks, qty_lots, taker_side, time_us, maker_order_id, taker_order_id,
       maker_fee_atoms, taker_fee_atoms, taker_user_id = %(user)s AS taker
FROM ({_SIDE.format(side="taker")} UNION ALL {_SIDE.format(side="maker")}) mine
ORDER BY time_us DESC, market_id DESC, trade_id DESC LIMIT %(limit)s
"""  # noqa: S608  # Constants of this file.


class Queries:
    def __init__(self, pool: Pool, markets: Markets) -> None:
        self._pool = pool
        self._markets = markets

    async def order(self, user_id: int, order_id: int) -> pb.Order:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_ONE, [order_id, user_id])).fetchone()
        if row is None:
            raise OrderNotFound(details={"order_id": str(order_id)})
        await self._learn([row[3]])
        return self._order(row)

    async def orders(self, user_id: int, request: pb.ListOrdersRequest) -> pb.ListOrdersResponse:
        """Newest first; the cursor is the last order of the page before."""
        limit = _limit(request.limit)
        given = {
            "user": user_id,
            "before": _number(request.cursor) if request.cursor else MAX_INT64,
            "market": self._markets.named(request.symbol).market_id if request.symbol else None,
            "status": request.status or None,
            "client": request.client_order_id or None,
            "live": request.only_live or None,
            "limit": limit + 1,
        }
        if "\0" in request.client_order_id:  # PostgreSQL's text cannot hold it, so nobody has it.
            return pb.ListOrdersResponse()
        filters = [text for name, text in _FILTERS.items() if given[name] is not None]
        many = "\n".join([_OWN, *filters, _NEWEST])
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(many.encode(), given)).fetchall()
        cursor = str(rows[limit - 1][0]) if len(rows) > limit else ""
        await self._learn([row[3] for row in rows])
        return pb.ListOrdersResponse(orders=[self._order(row) for row in rows[:limit]], cursor=cursor)

    async def fills(self, user_id: int, request: pb.ListFillsRequest) -> pb.ListFillsResponse:
        """Newest first; the cursor is (time, market, trade) of the last fill of the page before."""
        limit = _limit(request.limit)
        time_us, after_market, trade_id = _fill_cursor(request.cursor)
        given = {
            "user": user_id,
            "time": time_us,
            "after_market": after_market,
            "trade": trade_id,
            "market": self._markets.named(request.symbol).market_id if request.symbol else None,
            "limit": limit + 1,
        }
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_FILLS, given)).fetchall()
        cursor = ""
        if len(rows) > limit:
            last = rows[limit - 1]
            cursor = f"{last[5]}-{last[1]}-{last[0]}"
        await self._learn([row[1] for row in rows])
        return pb.ListFillsResponse(fills=[self._fill(row) for row in rows[:limit]], cursor=cursor)

    async def accounts(self, user_id: int) -> pb.ListAccountsResponse:
        async with self._pool.connection() as connection:
            return pb.ListAccountsResponse(accounts=await balances(connection, user_id))

    async def _learn(self, market_ids: Iterable[int]) -> None:
        """Another replica may have taken orders in a market that this one has not heard of yet."""
        if not set(market_ids) <= self._markets.by_id.keys():
            await self._markets.load(self._pool)

    def _order(self, row: TupleRow) -> pb.Order:
        return pb.Order(
            order_id=row[0],
            client_order_id=row[1] or "",
            user_id=row[2],
            market_id=row[3],
            symbol=self._markets.by_id[row[3]].symbol,
            side=row[4],
            type=row[5],
            time_in_force=row[6],
            post_only=row[7],
            stp=row[8],
            price_ticks=row[9],
            qty_lots=row[10],
            quote_atoms=row[11],
            filled_lots=row[12],
            filled_quote_atoms=row[13],
            fee_atoms=row[14],
            status=row[15],
            reason=row[16],
            sequence=row[17],
            created_us=row[18],
            updated_us=row[19],
        )

    def _fill(self, row: TupleRow) -> types.Fill:
        (
            trade_id,
            market_id,
            price,
            lots,
            taker_side,
            time_us,
            maker_id,
            taker_id,
            maker_fee,
            taker_fee,
            taker,
        ) = row
        market = self._markets.by_id[market_id]
        buys = (taker_side == Side.BUY) == taker
        return types.Fill(
            trade_id=trade_id,
            order_id=taker_id if taker else maker_id,
            market_id=market_id,
            side=types.SIDE_BUY if buys else types.SIDE_SELL,
            price_ticks=price,
            qty_lots=lots,
            fee_atoms=taker_fee if taker else maker_fee,
            fee_asset_id=market.base.asset_id if buys else market.quote.asset_id,
            liquidity=types.Liquidity.ValueType(Liquidity.TAKER if taker else Liquidity.MAKER),
            time_us=time_us,
        )


def _limit(asked: int) -> int:
    if not 0 <= asked <= MOST:
        raise Malformed(f"limit is 1 to {MOST}", {"limit": str(asked)})
    return asked or DEFAULT_LIMIT


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise Malformed("This cursor was not given out here", {"cursor": text[:64]})
    return min(int(text), MAX_INT64)


def _fill_cursor(text: str) -> tuple[int, int, int]:
    if not text:
        return MAX_INT64, 0, 0
    parts = text.split("-")
    if len(parts) != 3:
        raise Malformed("This cursor was not given out here", {"cursor": text[:64]})
    time_us, market_id, trade_id = (_number(part) for part in parts)
    return time_us, min(market_id, (1 << 31) - 1), trade_id
