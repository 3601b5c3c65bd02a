"""Reads the records of the topics, and refuses what no leader would have written. Pure.

Half a record can be bytes that mean something else: what is read here has a place, a market and amounts
that the views can take. Everything raises Undecodable, a ValueError.
"""

from collections.abc import Sequence

from common.core.messages import BookUpdate, OrderStatus, Side
from common.wire import Undecodable, decode_book, decode_order_updates, decode_trades
from exchange.v1 import events_pb2 as ev

_SIDES, _STATUSES = frozenset(map(int, Side)), frozenset(map(int, OrderStatus))
_END_OF_TIME_US = 253_402_300_800_000_000  # The year 10000, which no text has room for.


def read_book(_partition: int, value: bytes) -> BookUpdate:
    update = decode_book(value)
    _check("book update", update.market_id > 0 and update.sequence > 0 and update.last_trade_id >= 0)
    _check("book update", 0 <= update.previous <= update.sequence and _is_time(update.time_us))
    least_lots = 1 if update.full else 0
    _check("book update", _levels(update.bids, least_lots) and _levels(update.asks, least_lots))
    return update


def read_trades(partition: int, value: bytes) -> ev.TradeBatch:
    batch = decode_trades(value)
    _check("trades", batch.partition == partition and batch.last_sequence > 0 and bool(batch.trades))
    for trade in batch.trades:
        _check("trades", trade.market_id > 0 and trade.trade_id > 0)
        _check("trades", trade.price_ticks > 0 and trade.qty_lots > 0)
        _check("trades", trade.taker_side in _SIDES and _is_time(trade.time_us))
    return batch


def open_order_updates(partition: int, value: bytes) -> ev.OrderUpdates:
    """The record and its place; `check_orders` looks at the orders, unless they have been told already."""
    updates = decode_order_updates(value)
    name = "order updates"
    _check(name, updates.partition == partition and bool(updates.orders) and _is_time(updates.time_us))
    _check(name, 0 < updates.first_sequence <= updates.last_sequence)
    return updates


def check_orders(updates: ev.OrderUpdates) -> ev.OrderUpdates:
    name = "order updates"
    for update in updates.orders:
        state = update.state
        _check(name, state.order_id > 0 and state.user_id > 0 and state.market_id > 0)
        _check(name, state.side in _SIDES and state.status in _STATUSES)
        for fill in update.fills:
            _check(name, fill.trade_id > 0 and fill.price_ticks > 0 and fill.qty_lots > 0)
            _check(name, fill.fee_atoms >= 0)
    return updates


def _check(name: str, sound: bool) -> None:
    if not sound:
        raise Undecodable(f"{name}: no leader would say this")


def _levels(levels: Sequence[tuple[int, int]], least_lots: int) -> bool:
    return all(price_ticks > 0 and lots >= least_lots for price_ticks, lots in levels)


def _is_time(time_us: int) -> bool:
    return 0 <= time_us < _END_OF_TIME_US
