"""What is told after an interruption: all that happened meanwhile, each once."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TypeVar

import pytest

from exchange_client import Fill, FillsEvent, Order, OrderNotFound, OrdersEvent, OrderStatus, OrderUpdate
from exchange_client.missed import Fills, Orders, Recent
from exchange_client.pages import Pages

pytestmark = pytest.mark.anyio

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
T = TypeVar("T")
ZERO = Decimal(0)


def order(order_id: str, status: OrderStatus, at_s: float) -> Order:
    time = START + timedelta(seconds=at_s)
    return Order(order_id, "X", "BUY", "LIMIT", "GTC", status, ZERO, ZERO, ZERO, time, time)


def fill(trade_id: int) -> Fill:
    time = START + timedelta(seconds=trade_id)
    return Fill(str(trade_id), "1", "X", "BUY", ZERO, ZERO, ZERO, "B", "MAKER", time)


class Known:
    """An exchange that knows these, newest first."""

    def __init__(self) -> None:
        self.known: list[Order] = []
        self.filled: list[Fill] = []
        self.read = 0

    async def time(self) -> datetime:
        return START

    async def order(self, order_id: str) -> Order:
        for one in self.known:
            if one.order_id == order_id:
                return one
        raise OrderNotFound("ORDER_NOT_FOUND", "no")

    def orders(self, *, since: datetime) -> Pages[Order]:
        return self._one_by_one([one for one in self.known if one.created_at >= since])

    def fills(self) -> Pages[Fill]:
        return self._one_by_one(self.filled)

    def _one_by_one(self, all_: list[T]) -> Pages[T]:
        async def fetch(cursor: str) -> tuple[list[T], str | None]:
            self.read += 1
            after = int(cursor or 0)
            return all_[after : after + 1], str(after + 1) if after < len(all_) else None

        return Pages(fetch)


def orders_event(*orders: Order, snapshot: bool = True) -> OrdersEvent:
    updates = [OrderUpdate.of(one) for one in orders]
    return OrdersEvent(channel="orders", snapshot=snapshot, sequence=1, previous=0, orders=updates)


def fills_event(*trade_ids: int, snapshot: bool = True) -> FillsEvent:
    fills = [fill(trade_id) for trade_id in trade_ids]
    return FillsEvent(channel="fills", snapshot=snapshot, sequence=1, previous=0, fills=fills)


async def test_orders_that_ended_meanwhile_are_told_before_the_snapshot() -> None:
    exchange = Known()
    orders = Orders(exchange)
    kept, gone = order("1", OrderStatus.OPEN, 0), order("2", OrderStatus.OPEN, 1)
    first = orders_event(kept, gone)
    assert await orders.take_snapshot(first) == [first]
    came_and_went = order("4", OrderStatus.FILLED, 9)
    exchange.known = [
        came_and_went,
        order("5", OrderStatus.ACCEPTED, 8),  # Its own update will tell.
        order("2", OrderStatus.FILLED, 1),
        kept,
        *(order(str(old), OrderStatus.FILLED, -100 - old) for old in range(100, 200)),
    ]
    second = orders_event(kept)
    missed, snapshot = await orders.take_snapshot(second)
    assert isinstance(missed, OrdersEvent)
    assert [(one.order_id, one.status) for one in missed.orders] == [("2", "FILLED"), ("4", "FILLED")]
    assert (missed.snapshot, snapshot) == (False, second)
    assert exchange.read == 5  # Not the whole history.
    assert await orders.take_snapshot(second) == [second]  # Each once.


async def test_an_order_whose_end_was_heard_is_not_told_again() -> None:
    exchange = Known()
    orders = Orders(exchange)
    one = order("1", OrderStatus.OPEN, 0)
    await orders.take_snapshot(orders_event(one))
    exchange.known = [order("1", OrderStatus.CANCELED, 2)]
    orders.take(orders_event(*exchange.known, snapshot=False))
    second = orders_event()
    assert await orders.take_snapshot(second) == [second]


async def test_each_fill_is_told_once_and_oldest_first() -> None:
    exchange = Known()
    fills = Fills(exchange)
    assert await fills.take_snapshot(fills_event(1, 2)) == []
    fills.take(fills_event(3, snapshot=False))
    [missed] = await fills.take_snapshot(fills_event(2, 3, 4, 5))
    assert isinstance(missed, FillsEvent)
    assert [one.trade_id for one in missed.fills] == ["4", "5"]
    assert exchange.read == 0
    assert await fills.take_snapshot(fills_event(2, 3, 4, 5)) == []


async def test_more_fills_than_a_snapshot_shows_are_fetched() -> None:
    exchange = Known()
    fills = Fills(exchange)
    await fills.take_snapshot(fills_event(1))
    exchange.filled = [fill(trade_id) for trade_id in range(300, 0, -1)]
    [missed] = await fills.take_snapshot(fills_event(*range(201, 301)))
    assert isinstance(missed, FillsEvent)
    assert [int(one.trade_id) for one in missed.fills] == list(range(2, 301))
    assert not missed.snapshot


def test_what_is_remembered_is_bounded() -> None:
    recent = Recent()
    for key in range(10_000):
        recent.add(key)
    assert (0 in recent, 9_999 in recent, 5_000 in recent) == (False, True, True)
