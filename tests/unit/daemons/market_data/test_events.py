"""Who is told of which record: here, that the candle writer hears of trades when they can be read."""

from typing import cast

import pytest

from common.kafka_reader import Record
from daemons.market_data.dead_letters import DeadLetters
from daemons.market_data.events import Events
from daemons.market_data.markets import Markets
from daemons.market_data.private import PrivateDesk
from exchange.v1 import events_pb2, market_data_pb2, types_pb2

pytestmark = pytest.mark.anyio


class NoMarkets:
    async def learn(self, market_id: int) -> None:
        return None


class NobodyListens:
    def has_seen(self, updates: events_pb2.OrderUpdates) -> bool:
        return False

    def take(self, updates: events_pb2.OrderUpdates, after: object) -> bool:
        return True


class NoDeadLetters:
    def put(self, kind: str, partition: int, record: Record, why: str) -> None:
        raise AssertionError(why)


def _record(message: events_pb2.OrderUpdates | events_pb2.TradeBatch) -> Record:
    return Record(0, message.SerializeToString(), 1, -1)


def _update(fills: int) -> Record:
    order = events_pb2.UserOrderUpdate(
        state=events_pb2.OrderState(
            order_id=1, user_id=1, market_id=1, side=types_pb2.SIDE_BUY, status=types_pb2.ORDER_STATUS_OPEN
        ),
        fills=[types_pb2.Fill(trade_id=id, price_ticks=1, qty_lots=1) for id in range(1, fills + 1)],
    )
    return _record(events_pb2.OrderUpdates(partition=1, first_sequence=1, last_sequence=2, orders=[order]))


async def test_trades_are_told_of_when_they_are_settled_and_not_before() -> None:
    told: list[int] = []
    events = Events(
        cast(Markets, NoMarkets()),
        cast(PrivateDesk, NobodyListens()),
        cast(DeadLetters, NoDeadLetters()),
        told.append,
    )
    trade = market_data_pb2.PublicTrade(
        market_id=1, trade_id=1, price_ticks=1, qty_lots=1, taker_side=types_pb2.SIDE_BUY
    )
    await events.take_trades(
        1, [_record(events_pb2.TradeBatch(partition=1, last_sequence=2, trades=[trade]))]
    )
    await events.take_order_updates(1, [_update(fills=0)])
    assert told == []  # The first is sent before TX2, the second does not trade.
    await events.take_order_updates(1, [_update(fills=2)])
    assert told == [1]
