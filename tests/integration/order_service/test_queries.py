"""What users ask about themselves: right by every filter, and read by index however long their history."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from common import db
from common.core import messages as m
from common.core.errors import Malformed
from common.core.units import MAX_INT64
from daemons.order_service import queries
from daemons.order_service.markets import Markets
from daemons.order_service.order_lists import fills_sources, orders_source
from daemons.order_service.pages import SCAN_ROWS
from daemons.order_service.queries import Queries
from daemons.order_service.requests import CancelOrder
from exchange.v1 import orders_pb2 as pb
from exchange.v1 import types_pb2 as types
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


async def test_fills_by_every_filter(desk: Desk, asked: Queries) -> None:
    user, other = await desk.user(), await desk.user()
    bid = await desk.place(limit(user, m.Side.BUY, PRICE, 3 * LOTS))
    for _ in range(2):
        await desk.place(limit(other, m.Side.SELL, PRICE, LOTS))
    ask = await desk.place(limit(user, m.Side.SELL, 2 * PRICE, LOTS, symbol="ETH-USD"))
    await desk.place(limit(other, m.Side.BUY, 2 * PRICE, LOTS, symbol="ETH-USD"))
    for partition in (0, 1):
        await desk.run(partition)

    async def found(who: int = user, **filters: object) -> list[tuple[int, int]]:
        request = pb.ListFillsRequest(**filters)  # type: ignore[arg-type]  # names of its own fields
        fills = (await asked.fills(who, request)).fills
        assert all(fill.market_id in (1, 2) for fill in fills)
        return sorted((fill.market_id, fill.trade_id) for fill in fills)

    assert await found() == await found(other) == [(1, 1), (1, 2), (2, 1)]
    assert await found(order_id=bid.order_id) == [(1, 1), (1, 2)]
    assert await found(order_id=ask.order_id) == [(2, 1)]
    assert await found(other, order_id=bid.order_id) == []
    assert await found(side=int(m.Side.SELL)) == await found(other, side=int(m.Side.BUY)) == [(2, 1)]
    assert await found(symbol="BTC-USD", side=int(m.Side.SELL)) == []
    times = sorted(fill.time_us for fill in (await asked.fills(user, pb.ListFillsRequest())).fills)
    assert len(await found(from_us=times[-1])) == times.count(times[-1])
    assert len(await found(to_us=times[-1])) == 3 - times.count(times[-1])
    assert await found(from_us=times[-1] + 1) == await found(to_us=times[0]) == []


async def test_orders_from_and_to_a_time(desk: Desk, asked: Queries) -> None:
    user = await desk.user()
    placed = [await desk.place(limit(user, m.Side.BUY, PRICE, LOTS)) for _ in range(5)]

    async def found(**filters: object) -> list[int]:
        request = pb.ListOrdersRequest(**filters)  # type: ignore[arg-type]  # names of its own fields
        return [order.order_id for order in (await asked.orders(user, request)).orders]

    ids, times = [one.order_id for one in placed], [one.created_us for one in placed]
    assert await found(from_us=times[1], to_us=times[4]) == ids[3:0:-1]
    assert await found(to_us=times[2], only_live=True, side=int(m.Side.BUY)) == ids[1::-1]
    assert await found(side=int(m.Side.SELL)) == await found(from_us=times[4] + 1) == []
    first = await asked.orders(user, pb.ListOrdersRequest(from_us=times[1], to_us=times[4], limit=2))
    assert await found(from_us=times[1], to_us=times[4], cursor=first.cursor) == [ids[1]]


@pytest.mark.parametrize("changed", [{"symbol": "BTC-USD"}, {"only_live": True}, {"from_us": 1}, {"side": 1}])
async def test_a_cursor_goes_with_its_filters_and_its_user(
    desk: Desk, asked: Queries, changed: dict[str, object]
) -> None:
    user, other = await desk.user(), await desk.user()
    for _ in range(2):
        await desk.place(limit(user, m.Side.BUY, PRICE, LOTS))
    cursor = (await asked.orders(user, pb.ListOrdersRequest(limit=1))).cursor
    request = pb.ListOrdersRequest(cursor=cursor, **changed)  # type: ignore[arg-type]  # its own fields
    for who, wrong in ((user, request), (other, pb.ListOrdersRequest(cursor=cursor))):
        with pytest.raises(Malformed, match="other filters"):
            await asked.orders(who, wrong)
    with pytest.raises(Malformed, match="not given out"):
        await asked.fills(user, pb.ListFillsRequest(cursor=cursor))


async def test_what_is_there_at_the_start_is_seen_once_while_orders_come_and_go(
    desk: Desk, asked: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "SCAN_ROWS", 7)
    user = await desk.user()
    there = [
        (await desk.place(limit(user, side, PRICE if side is m.Side.BUY else 2 * PRICE, LOTS))).order_id
        for side in (m.Side.BUY, m.Side.SELL) * 15
    ]
    buys, seen, cursor, pages = there[::2], list[int](), "", 0
    while cursor or not pages:
        request = pb.ListOrdersRequest(limit=4, cursor=cursor, only_live=True, side=types.SIDE_BUY)
        page = await asked.orders(user, request)
        seen += [order.order_id for order in page.orders]
        cursor, pages = page.cursor, pages + 1
        await desk.place(limit(user, m.Side.BUY, PRICE, LOTS))
        await desk.submit(CancelOrder(user, there[-1 - 2 * pages]))  # A sell: the scan has fewer rows now.
        await desk.run(0)
    assert seen == buys[::-1]
    assert pages > 4


def _looked_at(node: dict[str, Any]) -> Iterator[int]:
    """Rows that each scan of a plan has touched."""
    if "Scan" in node["Node Type"] and node["Node Type"] != "Subquery Scan":
        rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        yield int(rows * node["Actual Loops"]) + int(node.get("Rows Removed by Index Recheck", 0))
    for child in node.get("Plans", ()):
        yield from _looked_at(child)


PLANNED: list[pb.ListOrdersRequest | pb.ListFillsRequest] = [
    pb.ListOrdersRequest(),
    pb.ListOrdersRequest(only_live=True),
    pb.ListOrdersRequest(client_order_id="mine"),
    pb.ListOrdersRequest(client_order_id="mine", symbol="BTC-USD"),
    pb.ListOrdersRequest(symbol="ETH-USD"),
    pb.ListOrdersRequest(status=types.ORDER_STATUS_REJECTED),
    pb.ListOrdersRequest(status=types.ORDER_STATUS_ACCEPTED),
    pb.ListOrdersRequest(side=types.SIDE_SELL, only_live=True),
    pb.ListOrdersRequest(from_us=1_000_100, to_us=1_000_200),
    pb.ListOrdersRequest(to_us=1_050_000, symbol="ETH-USD"),
    pb.ListFillsRequest(),
    pb.ListFillsRequest(symbol="ETH-USD"),
    pb.ListFillsRequest(side=types.SIDE_SELL),
    pb.ListFillsRequest(from_us=1_000_100, to_us=1_000_200),
    pb.ListFillsRequest(order_id=1_000_500),
]


async def test_no_page_reads_a_long_history(desk: Desk) -> None:
    """Of each kind of list, what PostgreSQL looks at with the plan that it makes for every value."""
    user = await desk.user()
    for statement in (_HISTORY, _TRADES):
        await desk.connection.execute(statement.encode(), {"user": user})
    await desk.connection.execute("VACUUM ANALYZE")
    await desk.connection.execute("SET plan_cache_mode = force_generic_plan")
    most = SCAN_ROWS + 200
    for request in PLANNED:
        sources = (
            fills_sources(request) if isinstance(request, pb.ListFillsRequest) else [orders_source(request)]
        )
        given = {
            "user": user,
            "market": 2,
            "status": 7,
            "client": "mine",
            "side": 2,
            "other_side": 1,
            "order": 5,
            "from": request.from_us,
            "limit": 101,
            "scan": SCAN_ROWS,
            "p0": request.to_us or MAX_INT64,
            "p1": 0,
            "p2": 0,
        }
        for source in sources:
            for statement in [source.rows] + [source.end] * bool(source.filters):
                explained = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
                cursor = await desk.connection.execute(explained.encode(), given)
                [[plan]] = await cursor.fetchall()
                assert "Seq Scan" not in str(plan), statement
                assert sum(_looked_at(plan[0]["Plan"])) <= most, (statement, plan)
