"""What users ask about themselves: right by every filter, and read by index however long their history."""

from collections.abc import AsyncIterator

import pytest

from common import db
from common.core import messages as m
from daemons.order_service import queries
from daemons.order_service.markets import Markets
from daemons.order_service.queries import Queries
from daemons.order_service.requests import CancelOrder
from exchange.v1 import orders_pb2 as pb
from tests.integration.order_service.desk import Desk, limit

pytestmark = pytest.mark.anyio

PRICE, LOTS = 5_000_000, 1_000
# As many orders and trades of one user as a bot makes in a day; almost none of them live.
_HISTORY = """
INSERT INTO orders
SELECT n, %(user)s, 1, 0, n, NULL, 1, 1, 1, false, 1, 100000, 100, 0, 100, n,
       CASE WHEN n < 1000010 THEN 2 ELSE 4 END, 0, 0, 0, 0, 0, n
FROM generate_series(1000000, 1100000) n
"""
_TRADES = """
INSERT INTO trades
SELECT 1, n, 0, n, n, 100000, 100, 1, n, n, %(user)s + n %% 2, %(user)s + 1 - n %% 2, 1, 1
FROM generate_series(1000000, 1100000) n
"""


@pytest.fixture
async def asked(desk: Desk) -> AsyncIterator[Queries]:
    async with db.pool(desk.url, name="order-service queries", max_size=1) as pool:
        yield Queries(pool, desk.markets)


async def test_orders_by_every_filter(desk: Desk, asked: Queries) -> None:
    user, other = await desk.user(), await desk.user()
    rest = await desk.place(limit(user, m.Side.BUY, PRICE, LOTS, client="rest"))
    ended = await desk.place(limit(user, m.Side.BUY, PRICE, LOTS, client="ended"))
    eth = await desk.place(limit(user, m.Side.BUY, PRICE, LOTS, symbol="ETH-USD"))
    await desk.place(limit(other, m.Side.BUY, PRICE, LOTS, client="theirs"))
    await desk.submit(CancelOrder(user, ended.order_id))
    for partition in (0, 1):
        await desk.run(partition)

    async def found(**filters: object) -> list[int]:
        request = pb.ListOrdersRequest(**filters)  # type: ignore[arg-type]  # names of its own fields
        return [order.order_id for order in (await asked.orders(user, request)).orders]

    everything = [eth.order_id, ended.order_id, rest.order_id]
    assert await found() == sorted(everything, reverse=True)
    assert await found(only_live=True) == sorted([eth.order_id, rest.order_id], reverse=True)
    assert await found(only_live=True, symbol="BTC-USD") == [rest.order_id]
    assert await found(client_order_id="ended") == [ended.order_id]
    assert await found(client_order_id="theirs") == []
    assert await found(client_order_id="no\0body") == []
    assert await found(status=int(m.OrderStatus.CANCELED)) == [ended.order_id]
    first = await asked.orders(user, pb.ListOrdersRequest(limit=2))
    assert await found(cursor=first.cursor) == [min(everything)]


async def test_fills_of_both_sides_page_by_page(desk: Desk, asked: Queries) -> None:
    user, other = await desk.user(), await desk.user()
    for number in range(6):
        sides = (m.Side.BUY, m.Side.SELL)
        maker, taker = (user, other) if number % 2 else (other, user)
        await desk.place(limit(maker, sides[number % 2], PRICE, LOTS))
        await desk.place(limit(taker, sides[1 - number % 2], PRICE, LOTS))
        await desk.run(0)
    found: list[int] = []
    cursor = ""
    while cursor or not found:
        page = await asked.fills(user, pb.ListFillsRequest(limit=4, cursor=cursor))
        found += [fill.trade_id for fill in page.fills]
        cursor = page.cursor
    assert found == [6, 5, 4, 3, 2, 1]
    assert not (await asked.fills(user, pb.ListFillsRequest(symbol="ETH-USD"))).fills


async def test_a_market_that_another_replica_knew_first_is_learnt(desk: Desk, asked: Queries) -> None:
    user, other = await desk.user(), await desk.user()
    for each, side in ((user, m.Side.BUY), (other, m.Side.SELL)):
        placed = await desk.place(limit(each, side, PRICE, LOTS, symbol="ETH-USD"))
    await desk.run(1)
    eth = desk.markets.named("ETH-USD").market_id

    async def behind() -> Queries:
        asked._markets = Markets()
        asked._markets.fill(one for one in desk.markets.by_id.values() if one.market_id != eth)
        return asked

    assert (await (await behind()).order(other, placed.order_id)).symbol == "ETH-USD"
    [order] = (await (await behind()).orders(other, pb.ListOrdersRequest())).orders
    assert order.symbol == "ETH-USD"
    [fill] = (await (await behind()).fills(other, pb.ListFillsRequest())).fills
    assert fill.market_id == eth


async def test_a_long_history_is_not_read_for_one_page(desk: Desk, asked: Queries) -> None:
    user = await desk.user()
    for statement in (_HISTORY, _TRADES):
        await desk.connection.execute(statement.encode(), {"user": user})
    await desk.connection.execute("VACUUM ANALYZE")

    async def touched() -> int:
        """Pages of the two tables that have been asked for so far, those of indexes aside."""
        await desk.connection.execute("SELECT pg_stat_force_next_flush()")
        [(pages,)] = await desk.rows(
            "SELECT sum(heap_blks_read + heap_blks_hit)::bigint FROM pg_statio_user_tables"
            " WHERE relname IN ('orders', 'trades')"
        )
        return pages

    async with asked._pool.connection() as connection:
        for _ in range(8):  # Past the point where PostgreSQL makes a plan for every value.
            for name in ("client", "live"):
                given = {"user": user, "before": queries.MAX_INT64, "client": "mine", "limit": 51}
                text = "\n".join([queries._OWN, queries._FILTERS[name], queries._NEWEST])
                await connection.execute(text.encode(), given)
            given = {"user": user, "time": queries.MAX_INT64, "after_market": 0, "trade": 0}
            await connection.execute(queries._FILLS, {**given, "market": None, "limit": 51})
        await connection.execute("SELECT pg_stat_force_next_flush()")
        before = await touched()
        rows = await (
            await connection.execute(queries._FILLS, {**given, "market": None, "limit": 51})
        ).fetchall()
        assert len(rows) == 51
        for name, count in (("client", 0), ("live", 10)):
            text = "\n".join([queries._OWN, queries._FILTERS[name], queries._NEWEST])
            given = {"user": user, "before": queries.MAX_INT64, "client": "mine", "limit": 51}
            found = await (await connection.execute(text.encode(), given)).fetchall()
            assert len(found) == count
        await connection.execute("SELECT pg_stat_force_next_flush()")
        await connection.execute("SELECT 1")
        assert await touched() - before < 200
