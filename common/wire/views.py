"""What market-data reads: exchange.trades, exchange.orderbook, exchange.order_updates."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from common.core import messages as m
from common.wire.settlements import make_state
from common.wire.shared import FIELDS, PART_BYTES, Made, Undecodable
from exchange.v1 import events_pb2 as ev
from exchange.v1 import market_data_pb2 as md
from exchange.v1 import types_pb2 as ty

# Up to so many rows a settlement's updates are made in one go; larger ones in pieces, which let others run.
_FEW_ROWS: Final = 4_000

# Looked up once: an enumeration's member costs a look-up in its class each time.
_BUY: Final = m.Side.BUY
_MAKER: Final = m.Liquidity.MAKER
_TAKER: Final = m.Liquidity.TAKER


def encode_trades(*, partition: int, last_sequence: int, trades: Sequence[m.Trade], time_us: int) -> bytes:
    """A record of exchange.trades: the public half of a batch's trades."""
    raw = ev.TradeBatch(partition=partition, last_sequence=last_sequence)
    add = raw.trades.add
    for trade in trades:
        _make_public_trade(add, trade, time_us)
    return raw.SerializeToString()


def decode_trades(data: bytes) -> ev.TradeBatch:
    try:
        return ev.TradeBatch.FromString(data)
    except Exception as error:
        raise Undecodable(f"trades: {error}") from error


def public_trade(trade: m.Trade, time_us: int) -> md.PublicTrade:
    return _make_public_trade(md.PublicTrade, trade, time_us)


def _make_public_trade(make: Callable[..., Made], trade: m.Trade, time_us: int) -> Made:
    return make(
        market_id=trade.market_id,
        trade_id=trade.trade_id,
        price_ticks=trade.price_ticks,
        qty_lots=trade.qty_lots,
        taker_side=ty.Side.ValueType(trade.taker_side),
        time_us=time_us,
    )


def encode_book(update: m.BookUpdate) -> bytes:
    return ev.BookUpdate(
        market_id=update.market_id,
        full=update.full,
        sequence=update.sequence,
        previous=update.previous,
        last_trade_id=update.last_trade_id,
        bids=[md.Level(price_ticks=price, qty_lots=qty) for price, qty in update.bids],
        asks=[md.Level(price_ticks=price, qty_lots=qty) for price, qty in update.asks],
        time_us=update.time_us,
    ).SerializeToString()


def decode_book(data: bytes) -> m.BookUpdate:
    try:
        raw = ev.BookUpdate.FromString(data)
    except Exception as error:
        raise Undecodable(f"book update: {error}") from error
    return m.BookUpdate(
        raw.market_id,
        raw.full,
        raw.sequence,
        raw.previous,
        raw.last_trade_id,
        [(level.price_ticks, level.qty_lots) for level in raw.bids],
        [(level.price_ticks, level.qty_lots) for level in raw.asks],
        raw.time_us,
    )


def encode_order_updates(
    settlement: m.Settlement, markets: dict[int, m.Market], part_bytes: int = PART_BYTES
) -> Iterator[bytes]:
    """The records of exchange.order_updates: a pure function of the settlement (I11).

    A sweep has more orders than a record may carry: each part has the next of them, by id, and is closed
    when it passes `part_bytes`. None when the settlement touches no order.
    """
    fills = _fills_by_order(FIELDS, settlement.trades, markets, settlement.time_us)
    if len(settlement.orders) + len(settlement.trades) <= _FEW_ROWS:
        whole = _updates(settlement, settlement.orders, fills)
        if len(whole) < part_bytes:  # As most do; none of its parts would have been closed before the last.
            if settlement.orders:
                yield whole
            return
    part: list[m.OrderState] = []
    size_bytes = 0
    for state in settlement.orders:
        part.append(state)
        own = fills.get(state.order_id, ())
        size_bytes += ev.UserOrderUpdate(state=make_state(FIELDS, state), fills=own).ByteSize()
        if size_bytes >= part_bytes:
            yield _updates(settlement, part, fills)
            part, size_bytes = [], 0
    if part:
        yield _updates(settlement, part, fills)


def _updates(settlement: m.Settlement, orders: Sequence[m.OrderState], fills: dict[int, list[Any]]) -> bytes:
    raw = ev.OrderUpdates(
        partition=settlement.partition,
        first_sequence=settlement.first_sequence,
        last_sequence=settlement.last_sequence,
        time_us=settlement.time_us,
    )
    add = raw.orders.add
    for state in orders:
        add(state=make_state(FIELDS, state), fills=fills.get(state.order_id, ()))
    return raw.SerializeToString()


def decode_order_updates(data: bytes) -> ev.OrderUpdates:
    try:
        return ev.OrderUpdates.FromString(data)
    except Exception as error:
        raise Undecodable(f"order updates: {error}") from error


def fills_by_order(
    trades: Iterable[m.Trade], markets: dict[int, m.Market], time_us: int
) -> dict[int, list[ty.Fill]]:
    """Both sides of every trade, oldest first, by the order that they belong to."""
    return _fills_by_order(ty.Fill, trades, markets, time_us)


def _fills_by_order(
    make: Callable[..., Made], trades: Iterable[m.Trade], markets: dict[int, m.Market], time_us: int
) -> dict[int, list[Made]]:
    fills: dict[int, list[Made]] = {}
    for trade in trades:
        market = markets[trade.market_id]
        for order_id, liquidity in ((trade.maker_order_id, _MAKER), (trade.taker_order_id, _TAKER)):
            fills.setdefault(order_id, []).append(_make_fill(make, trade, liquidity, market, time_us))
    return fills


def _make_fill(
    make: Callable[..., Made], trade: m.Trade, liquidity: m.Liquidity, market: m.Market, time_us: int
) -> Made:
    """One side of a trade; its fee is of what that side receives."""
    taker = liquidity is _TAKER
    buys = (trade.taker_side is _BUY) == taker
    return make(
        trade_id=trade.trade_id,
        order_id=trade.taker_order_id if taker else trade.maker_order_id,
        market_id=trade.market_id,
        side=ty.SIDE_BUY if buys else ty.SIDE_SELL,
        price_ticks=trade.price_ticks,
        qty_lots=trade.qty_lots,
        fee_atoms=trade.taker_fee_atoms if taker else trade.maker_fee_atoms,
        fee_asset_id=market.base.asset_id if buys else market.quote.asset_id,
        liquidity=ty.Liquidity.ValueType(liquidity),
        time_us=time_us,
    )
