"""What a user may ask about themselves. Every statement names the user, so nobody sees another's rows."""

from collections.abc import Iterable, Sequence

from psycopg.rows import TupleRow

from common.core.errors import Malformed, OrderNotFound
from common.core.messages import Liquidity, Side
from common.core.units import MAX_INT64
from common.db import Connection, Pool
from daemons.order_service.markets import Markets
from daemons.order_service.order_lists import (
    ORDER_COLUMNS,
    Source,
    fills_sources,
    orders_source,
    other_side,
)
from daemons.order_service.pages import (
    SCAN_ROWS,
    Position,
    Question,
    Slice,
    cursor_of,
    page_of,
    position_of,
)
from daemons.order_service.testers import balances
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as types

DEFAULT_LIMIT, MOST = 100, 1_000

Given = dict[str, int | str]  # What a statement's names stand for.

_ONE = f"SELECT {ORDER_COLUMNS} FROM orders WHERE order_id = %s AND user_id = %s"  # noqa: S608
_SOME = f"SELECT {ORDER_COLUMNS} FROM orders WHERE order_id = ANY(%s::bigint[]) AND user_id = %s"  # noqa: S608
# When an order can have traded: from its acceptance to its last change.
_TIMES = "SELECT created_us, updated_us FROM orders WHERE order_id = %s AND user_id = %s"
# A page and where it ends must see the same rows.
_BEGIN, _COMMIT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "COMMIT"


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

    async def some(self, user_id: int, order_ids: Sequence[int]) -> list[pb.Order]:
        """Those of these orders that are the user's, in the order asked."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_SOME, [list(order_ids), user_id])).fetchall()
        await self._learn([row[3] for row in rows])
        found = {row[0]: row for row in rows}
        return [self._order(found[order_id]) for order_id in order_ids if order_id in found]

    async def orders(self, user_id: int, request: pb.ListOrdersRequest) -> pb.ListOrdersResponse:
        """Newest first. A page may be short; the one without a cursor is the last. Raises Malformed."""
        limit = _limit(request.limit)
        question = (
            *("orders", user_id, request.symbol, int(request.only_live), request.status),
            *(request.client_order_id, request.side, request.from_us, request.to_us),
        )
        given = {
            "user": user_id,
            "market": self._markets.named(request.symbol).market_id if request.symbol else 0,
            "status": request.status,
            "client": request.client_order_id,
            "side": request.side,
            "from": request.from_us,
            **_starting(request.cursor, question, request.to_us, 2),
        }
        if "\0" in request.client_order_id:  # PostgreSQL's text cannot hold it, so nobody has it.
            return pb.ListOrdersResponse()
        source = orders_source(request)
        async with self._pool.connection() as connection:
            rows, end = await _page(connection, [source], given, limit)
        await self._learn([row[3] for row in rows])
        cursor = cursor_of(end, question) if end else ""
        return pb.ListOrdersResponse(orders=[self._order(row) for row in rows], cursor=cursor)

    async def fills(self, user_id: int, request: pb.ListFillsRequest) -> pb.ListFillsResponse:
        """Newest first, as `orders`. An order that is not the user's has no fills."""
        limit = _limit(request.limit)
        question = (
            *("fills", user_id, request.symbol, request.order_id, request.side),
            *(request.from_us, request.to_us),
        )
        given = {
            "user": user_id,
            "market": self._markets.named(request.symbol).market_id if request.symbol else 0,
            "order": request.order_id,
            "side": request.side,
            "other_side": other_side(request.side),
            "from": request.from_us,
            **_starting(request.cursor, question, request.to_us, 3),
        }
        async with self._pool.connection() as connection:
            if request.order_id:
                times = await (await connection.execute(_TIMES, [request.order_id, user_id])).fetchone()
                if times is None:
                    return pb.ListFillsResponse()
                given["from"] = max(given["from"], times[0])
                if given["p0"] > times[1]:
                    given |= {"p0": times[1] + 1, "p1": 0, "p2": 0}
            rows, end = await _page(connection, fills_sources(request), given, limit)
        await self._learn([row[1] for row in rows])
        cursor = cursor_of(end, question) if end else ""
        return pb.ListFillsResponse(fills=[self._fill(row) for row in rows], cursor=cursor)

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


def _starting(cursor: str, question: Question, to_us: int, numbers: int) -> Given:
    """Where the page begins: behind the last one, or at the newest before `to_us`."""
    first = (to_us or MAX_INT64, *[0] * (numbers - 1))
    position = position_of(cursor, question, numbers) if cursor else first
    return {f"p{index}": number for index, number in enumerate(position)}


async def _page(
    connection: Connection, sources: Sequence[Source], given: Given, limit: int
) -> tuple[list[TupleRow], Position | None]:
    """The rows of a page, and where the next one begins."""
    given = given | {"limit": limit + 1, "scan": max(SCAN_ROWS, limit + 1)}
    filtered = any(source.filters for source in sources)
    if filtered:
        await connection.execute(_BEGIN)
    slices = [await _slice(connection, source, given, limit) for source in sources]
    if filtered:
        await connection.execute(_COMMIT)
    return page_of(slices, limit)


async def _slice(connection: Connection, source: Source, given: Given, limit: int) -> Slice[TupleRow]:
    rows = await (await connection.execute(source.rows.encode(), given)).fetchall()
    placed = [(source.position_of(row), row) for row in rows]
    if len(rows) > limit or not source.filters:
        return Slice(placed)
    end = await (await connection.execute(source.end.encode(), given)).fetchone()
    return Slice(placed, end)
